if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback
if 'on_success' not in globals():
    from mage_ai.data_preparation.decorators import on_success


@on_success
def success(**kwargs):
    print(f"legacy {kwargs['pipeline_uuid']} {kwargs['ds']}")
