if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def transform(data, *args, **kwargs):
    return data[data["name"].notna()].reset_index(drop=True)


@test
def test_output(output, *args) -> None:
    assert len(output) == 2


@test
def test_names(output, **kwargs) -> None:
    assert list(output["name"]) == ["Ada", "Bo"] and kwargs["block_uuid"] == "drop_nameless"
