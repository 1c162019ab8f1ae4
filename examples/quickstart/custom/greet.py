if "custom" not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def greet(*args, **kwargs):
    name = kwargs["name"]
    if not name:
        raise ValueError("there is nobody to greet: the variable `name` is empty")
    print(f"greeting {name}")
    return f"hello, {name}"
