"""Rematerialization: layers that run again in the backward pass.

Gradient checkpointing keeps the inputs of a layer instead of its intermediate
tensors and calls the layer a second time when the gradient needs them. Under
`keras.RematScope`, `call_rematerialized` runs a layer as a function without
side effects. Under `keras.remat`, `tf.recompute_grad` and
`torch.utils.checkpoint`, a layer is called as usual and asks `is_recomputing`.
"""

import contextlib
import threading

import keras
from keras import ops

from keras_norm import _keras_internals
from keras_norm import step_scope
from keras_norm.moments import widened_dtype

_current = threading.local()


def call_rematerialized(layer, layer_call, remat, inputs, *args, **kwargs):
    """Calls a layer with rematerialization and updates its state once.

    Everything that has a gradient is passed as a positional tensor, because
    TensorFlow accepts nothing else in a graph. State is read before the call,
    returned by the recomputed function and assigned after it, so that both runs
    compute the same.

    Args:
        layer: A built layer.
        layer_call: The layer's `call` method.
        remat: Function that returns a rematerialized version of a function, or
            the function itself if nothing is to be rematerialized.
        inputs: Tensor, the first argument of `layer_call`.
        *args: Other positional arguments of `layer_call`.
        **kwargs: Keyword arguments of `layer_call`.
    """
    weights, state = layer.trainable_variables, layer.non_trainable_variables
    outer, reopen_scope = is_recomputing(), step_scope.capture_scope()
    updated = []

    def run(inputs, *values):
        mapping = zip([*state, *weights], [*old, *values], strict=True)
        with (
            keras.StatelessScope(mapping) as scope,
            reopen_scope(),
            _fixed_answer(outer),
        ):
            before = [scope.get_current_value(v) for v in state]
            outputs = layer_call(inputs, *args, **kwargs)
        after = [scope.get_current_value(v) for v in state]
        updated[:] = [
            variable
            for variable, start, end in zip(state, before, after, strict=True)
            if start is not end
        ]
        return outputs, *(scope.get_current_value(v) for v in updated)

    recomputed = remat(run)
    if recomputed is run:
        return layer_call(inputs, *args, **kwargs)
    if not keras.backend.is_float_dtype(inputs.dtype):
        inputs = ops.cast(inputs, widened_dtype(layer.compute_dtype))
    # As copies: a variable itself would count twice on TensorFlow and change
    # in place on torch.
    old, values = ([ops.copy(v) for v in group] for group in (state, weights))
    outputs, *new = recomputed(inputs, *values)
    for variable, value in zip(updated, new, strict=True):
        variable.assign(value)
    return outputs


def is_recomputing():
    """Returns True if the calling layer is run again in the backward pass."""
    answer = getattr(_current, "is_recomputing", None)
    if answer is not None:
        return answer
    return _keras_internals.is_recomputing_caller()


@contextlib.contextmanager
def _fixed_answer(answer):
    """Makes `is_recomputing` return this answer inside the context."""
    before = getattr(_current, "is_recomputing", None)
    _current.is_recomputing = answer
    try:
        yield
    finally:
        _current.is_recomputing = before
