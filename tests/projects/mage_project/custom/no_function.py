if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


def forgot_the_decorator(*args, **kwargs):
    return 1
