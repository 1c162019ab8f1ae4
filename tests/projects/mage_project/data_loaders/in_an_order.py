if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def load_data(*args, **kwargs):
    items = ["last", "first", "second"]
    metadata = [
        {"block_uuid": "last", "upstream_blocks": ["stamp:second"]},
        {"block_uuid": "first"},
        {"block_uuid": "second", "upstream_blocks": ["stamp:first"]},
    ]
    return [items, metadata]
