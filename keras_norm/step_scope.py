"""Context that a training step gives to the layers that it calls.

A layer with batch statistics reads it while the step is traced; other layers
do not need it.
"""

import contextlib
import functools
import threading

from keras import ops

_current = threading.local()


@contextlib.contextmanager
def step_scope(present=None, averages_state=False):
    """Opens a scope in which batch statistics take the step into account.

    Args:
        present: Tensor `(N,)`, 0 for examples that are padding, which batch
            statistics exclude. None if there is no padding.
        averages_state: Whether the step itself averages the state of all layers
            over the replicas, so that layers do not have to.
    """
    before = _present(), step_averages_state()
    _current.present, _current.averages_state = present, averages_state
    try:
        yield
    finally:
        _current.present, _current.averages_state = before


def capture_scope():
    """Returns a function that reopens the current scope at any later time."""
    return functools.partial(step_scope, _present(), step_averages_state())


def step_averages_state():
    """Returns True if the current step averages the state of layers itself."""
    return getattr(_current, "averages_state", False)


def zero_padding_counts(counts):
    """Sets the value counts of padding examples to zero.

    Args:
        counts: Tensor `(N, 1, 1, 1)`, the number of values per example.
    """
    present = _present()
    if present is None:
        return counts
    present = ops.cast(ops.not_equal(present, 0), counts.dtype)
    return counts * ops.reshape(present, (-1, *counts.shape[1:]))


def _present():
    return getattr(_current, "present", None)
