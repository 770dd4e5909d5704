"""Default number of channel groups, and checks of a given number."""

import math
import numbers

MAX_GROUPS = 32
MIN_CHANNELS_PER_GROUP = 4


def default_groups(num_channels):
    """Returns the largest divisor up to 32 with at least 4 channels per group.

    Returns 1 if there is no such divisor.
    """
    largest = min(MAX_GROUPS, num_channels // MIN_CHANNELS_PER_GROUP)
    divisors = (n for n in range(largest, 0, -1) if num_channels % n == 0)
    return next(divisors, 1)


def legacy_default_groups(num_channels):
    """Returns the former default: the greatest common divisor with 32.

    Saved models whose config says `groups: None` were trained with it.
    """
    return math.gcd(MAX_GROUPS, num_channels)


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
    """Raises an error unless `groups` is None or divides the channels."""
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
