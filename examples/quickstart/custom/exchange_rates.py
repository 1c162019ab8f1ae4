if "custom" not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def exchange_rates(*args, **kwargs):
    """What one unit of each currency is worth in euros, from a service that always fails at first.

    `retry_config` in the pipeline's metadata.yaml makes the engine try again: the first attempt of every run
    fails, the second succeeds.
    """
    if kwargs["retry"]["attempts"] == 1:
        raise ConnectionError("the exchange rate service did not answer")
    print("the exchange rate service answered at the second attempt")
    return {"EUR": 1.0, "USD": 0.92, "GBP": 1.17}
