if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def flaky(*args, **kwargs):
    attempt = kwargs["retry"]["attempts"]
    print(f"attempt {attempt}")
    if attempt < 3:
        raise ConnectionError(f"no answer at attempt {attempt}")
    return attempt
