if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def say_date(*args, **kwargs):
    print(f"started by {kwargs['upstream_date']}")
    return kwargs["upstream_date"]
