if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


# Names that Mage sets before the file runs: the upstream blocks' uuids, and df_1, df_2 in their order.
seen = {"df_1": df_1, "df_2": df_2, "first_number": first_number, "second_number": second_number}


@transformer
def transform(one, two, *args, **kwargs):
    return {"seen": seen, "args": [one, two]}
