if "data_loader" not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def load_orders(*args, **kwargs):
    return [{"id": 1, "customer": "Ada"}, {"id": 2, "customer": "Grace"}]
