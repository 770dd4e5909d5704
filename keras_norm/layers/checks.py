"""Checks of arguments: what came, what was wanted and how to mend it."""

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


def check_groups(groups, others=(None,)):
    """Returns `groups`, a positive integer or one of `others`, or raises."""
    is_integer = isinstance(groups, numbers.Integral)
    is_integer = is_integer and not isinstance(groups, bool)
    if groups is None or (is_integer and groups in others):
        return groups
    if not is_integer or groups < 1:
        raise ValueError(
            "`groups` must be a positive integer or "
            f"{' or '.join(map(str, others))}. Received: groups={groups!r}"
        )
    return int(groups)


def check_divides(groups, num_channels):
    """Raises unless `groups` divides the channels; None is no groups."""
    if groups is None or num_channels % groups == 0:
        return
    divisors = [n for n in range(1, num_channels + 1) if num_channels % n == 0]
    nearest = [max(n for n in divisors if n < groups)]
    nearest += [n for n in divisors if n > groups][:1]
    raise ValueError(
        "`groups` must divide the number of channels, as "
        f"{' and '.join(map(str, nearest))} would. Received: "
        f"groups={groups}, channels={num_channels}"
    )
