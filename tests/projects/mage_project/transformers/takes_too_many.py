if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(one, two, three, *args, **kwargs):
    return "never"
