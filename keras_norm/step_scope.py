"""What a training step knows of its batch, and layers cannot see.

A layer with batch statistics reads it while the step is traced; every other
layer has no need of it.
"""

import contextlib
import functools
import threading

from keras import ops

_current = threading.local()


@contextlib.contextmanager
def step_scope(present=None, averages_state=False):
    """Inside, batch statistics know of padding and of the step's own averages.

    Args:
        present: Tensor `(N,)`, 0 for the examples that are padding: they count
            in no batch statistic. None where all are examples.
        averages_state: Whether the step averages the state of all layers over
            the replicas by itself, so that a layer need not.
    """
    before = _present(), step_averages_state()
    _current.present, _current.averages_state = present, averages_state
    try:
        yield
    finally:
        _current.present, _current.averages_state = before


def capture_scope():
    """A function that opens a scope equal to the current one, at any time."""
    return functools.partial(step_scope, _present(), step_averages_state())


def step_averages_state():
    """Whether the step that is running averages what layers assign."""
    return getattr(_current, "averages_state", False)


def zero_padding_counts(counts):
    """The counts of values `(N, 1, 1, 1)`, zero for padding."""
    present = _present()
    if present is None:
        return counts
    present = ops.cast(ops.not_equal(present, 0), counts.dtype)
    return counts * ops.reshape(present, (-1, *counts.shape[1:]))


def _present():
    return getattr(_current, "present", None)
