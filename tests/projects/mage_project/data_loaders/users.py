if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def load_data(*args, **kwargs):
    users = [{"id": 1, "name": "user_1"}, {"id": 2, "name": "user_2"}, {"id": 3, "name": "user_3"}]
    metadata = [dict(block_uuid=f"for_user_{user['id']}", greeting="hello") for user in users]
    return [users, metadata]
