if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(user, *args, **kwargs):
    return f"{kwargs['greeting']} {user['name']} ({kwargs['dynamic_block_index']})"
