if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def clean_orders(orders, *args, **kwargs):
    """Without orders that came twice, that nobody placed, or that are for less than one piece."""
    clean = orders.drop_duplicates("order_id")
    clean = clean[clean["customer"].notna() & (clean["quantity"] > 0)].reset_index(drop=True)
    print(f"{len(orders) - len(clean)} of {len(orders)} orders dropped")
    return clean


@test
def no_order_is_there_twice(orders, *args):
    assert orders["order_id"].is_unique


@test
def every_quantity_is_positive(orders, *args):
    assert (orders["quantity"] > 0).all()
