if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback
if 'on_success' not in globals():
    from mage_ai.data_preparation.decorators import on_success
if 'on_failure' not in globals():
    from mage_ai.data_preparation.decorators import on_failure


@on_success
def success(**kwargs):
    print(f"on_success {kwargs['parent_block_uuid']}")


@on_failure
def failure(**kwargs):
    print(f"on_failure {kwargs['parent_block_uuid']}")
