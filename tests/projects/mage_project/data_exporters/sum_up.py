if 'data_exporter' not in globals():
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def export_data(numbers, *args, **kwargs):
    print(f"got {numbers}")
    return sum(numbers)
