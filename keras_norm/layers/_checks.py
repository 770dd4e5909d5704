"""Checks of layer arguments."""

import math
import numbers


def check_number(name, value, low, high=math.inf):
    """Returns `value` as a finite float in `[low, high]` or raises."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        upper = "" if high == math.inf else f" and at most {high}"
        raise ValueError(
            f"`{name}` must be a number of at least {low}{upper}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def check_choice(name, value, choices):
    """Returns `value` if it is one of `choices` or raises."""
    if not any(value is c or value == c for c in choices):
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
    return value
