if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(**kwargs) -> bool:
    return kwargs["block_uuid"] == "given_nothing"
