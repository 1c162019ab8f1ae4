if 'condition' not in globals():
    from mage_ai.data_preparation.decorators import condition


@condition
def evaluate_condition(number, *args, **kwargs) -> bool:
    return number > 1
