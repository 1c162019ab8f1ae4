import pandas as pd

if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def load_data(*args, **kwargs):
    return pd.DataFrame({"city": ["Bonn", "Rome"], "size": [3, 28]})
