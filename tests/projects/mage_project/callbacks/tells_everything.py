if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback


@callback
def bare(parent_block_data, **kwargs):
    print(f"success {kwargs['parent_block_uuid']}: {parent_block_data}, by {kwargs['block_uuid']}")


@callback("success")
def without_a_parameter(**kwargs):
    print(f"input {kwargs['__input']}, run {kwargs['pipeline_run'].pipeline_uuid}")


@callback("failure")
def on_trouble(*args, **kwargs):
    print(f"failure {kwargs['parent_block_uuid']}: {kwargs['__error']}")


@callback("cancelled")
def on_cancel(**kwargs):
    print(f"cancelled {kwargs['parent_block_uuid']}")
