if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test


@data_loader
def load(*args, **kwargs):
    return {"rows": 0}


@test
def test_is_there(output, *args) -> None:
    assert output is not None


@test
def test_has_rows(output, *args) -> None:
    assert output["rows"] > 0, "there are no rows"


@test
def test_has_many(output, *args) -> None:
    assert output["rows"] > 9
