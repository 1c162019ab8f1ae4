if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def top_customers(orders, rates, *args, **kwargs):
    """The best customers; how many is the pipeline's variable `top`."""
    euros = orders["quantity"] * orders["unit_price"] * orders["currency"].map(rates)
    spent = orders.assign(revenue_eur=euros).groupby("customer")["revenue_eur"].sum().round(2)
    return spent.nlargest(kwargs["top"]).reset_index()


@test
def the_best_come_first(customers, *args):
    assert customers["revenue_eur"].is_monotonic_decreasing
