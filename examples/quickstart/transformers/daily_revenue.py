if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def daily_revenue(orders, rates, *args, **kwargs):
    """One row a day: number of orders and revenue in euros."""
    euros = orders["quantity"] * orders["unit_price"] * orders["currency"].map(rates)
    days = orders.assign(day=orders["ordered_at"].dt.strftime("%Y-%m-%d"), revenue_eur=euros)
    table = days.groupby("day").agg(orders=("order_id", "count"), revenue_eur=("revenue_eur", "sum"))
    return table.round(2).reset_index()
