if 'condition' not in globals():
    from mage_ai.data_preparation.decorators import condition


@condition
def holds(*args, **kwargs) -> bool:
    return True


@condition
def does_not(*args, **kwargs) -> bool:
    return False
