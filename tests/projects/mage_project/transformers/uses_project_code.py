from mage_project.utils.text import shout
from utils.text import shout as both

if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(text, *args, **kwargs):
    return [shout(text), both(text)]
