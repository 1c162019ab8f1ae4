if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def look(*args, **kwargs):
    names = ("level", "from_project", "from_pipeline", "from_trigger", "given", "env", "pipeline_uuid", "block_uuid")
    assert kwargs["ds"] == kwargs["execution_date"].strftime("%Y-%m-%d")
    assert kwargs["hr"] == kwargs["execution_date"].strftime("%H")
    assert kwargs["execution_date"].tzinfo is not None
    kwargs["logger"].warning("a warning from the logger")
    return {name: kwargs.get(name) for name in names}
