if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback


@callback
def tell(data, **kwargs):
    print(f"done with {data}")
