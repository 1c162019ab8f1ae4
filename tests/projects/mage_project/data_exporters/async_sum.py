if 'data_exporter' not in globals():
    from mage_ai.data_preparation.decorators import data_exporter
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test


@data_exporter
async def export(values, *args, **kwargs):
    print(f"values {values}")
    return sum(values)


@test
async def test_output(output, *args) -> None:
    assert output == 5
