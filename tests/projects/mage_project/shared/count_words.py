if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer
if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@transformer
def count(text, *args, **kwargs):
    return len(text.split())


@custom
def words(*args, **kwargs):
    return "one two three"
