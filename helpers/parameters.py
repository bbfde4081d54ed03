"""Parameters of a notebook: one check for all, with a message that names the allowed values."""


def check(name: str, value, kind: type, allowed=None, minimum=None, maximum=None, filled=False):
    """Raise ValueError unless ``value`` is a ``kind`` within the stated values or bounds.

    For a list, ``allowed`` and the bounds hold for each element; ``filled`` asks for one at least.
    An int passes where a float is meant; a bool never passes for a number.
    """
    right = isinstance(value, (int, float) if kind is float else kind)
    if not right or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} = {value!r}: a value of type {kind.__name__} is needed.")
    if filled and not len(value):
        raise ValueError(f"{name} = {value!r}: at least one value is needed.")
    for item in value if kind is list else [value]:
        if allowed is not None and item not in allowed:
            choices = ", ".join(map(repr, allowed))
            raise ValueError(f"{name} = {value!r}: {item!r} is not allowed. Choose from {choices}.")
        if minimum is not None and item < minimum:
            raise ValueError(f"{name} = {value!r}: the least allowed value is {minimum}.")
        if maximum is not None and item > maximum:
            raise ValueError(f"{name} = {value!r}: the largest allowed value is {maximum}.")
