if "custom" not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def report(*args, **kwargs):
    title = kwargs.get("title", "Report")
    print(f"{title} for {kwargs['execution_date']}, started by {kwargs['trigger_name']}")
    return kwargs["ds"]
