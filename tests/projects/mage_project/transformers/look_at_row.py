if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(row, *args, **kwargs):
    return {"rows": len(row), "city": str(row["city"].iloc[0]), "size": int(row["size"].iloc[0])}
