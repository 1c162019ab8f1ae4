if 'condition' not in globals():
    from mage_ai.data_preparation.decorators import condition


@condition
def evaluate_condition(*args, **kwargs) -> bool:
    return args == (1,) and kwargs["parent_block_uuid"].startswith("guarded") and kwargs["block_uuid"] == "holds"
