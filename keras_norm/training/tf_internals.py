"""Private names of Keras and TensorFlow that training needs.

All were seen in Keras 3.12 to 3.15 and TensorFlow 2.19 to 2.21:

* `CompileLoss` finds the target, output and sample weight of each loss;
  `_flat_losses` lists its losses once it is built. Its arguments are
  `_user_loss` and `_user_loss_weights`.
* `_compile_loss` and `_compile_metrics` of a model hold the arguments of
  `compile`; `_flat_metrics` and `_flat_weighted_metrics` list the metrics for
  each output, and `_flatten_y` lists targets and outputs in the same order.
* `_fn` and `_fn_kwargs` of a `MeanMetricWrapper` are its function and
  arguments.
* `_metrics` of a layer are its metrics.
* `apply_mask` merges a mask into sample weights. A mask is an attribute of a
  tensor, and `_remat_mode` of a layer is the `RematScope` that created it.
* `_use_merge_call` of `strategy.extended` decides how Keras applies gradients.

* `_maybe_symbolic_build`, `_symbolic_build`, `_untrack_variable` and
  `_get_metrics_result_or_logs` are methods of a model.
"""

import contextlib

import keras
from keras.src.backend import get_keras_mask
from keras.src.backend import set_keras_mask
from keras.src.losses.loss import apply_mask
from keras.src.trainers.compile_utils import CompileLoss

__all__ = [
    "BuildFromData",
    "CompileLoss",
    "apply_mask",
    "compile_loss_arguments",
    "compile_loss_of",
    "compile_metrics_of",
    "get_layer_metrics",
    "get_losses",
    "get_masks",
    "get_metric_function",
    "is_rematerialized",
    "pair_metrics",
    "reduce_logs",
    "replace_losses",
    "set_compile_loss",
    "set_masks",
    "set_metric_function",
    "symbolic_build",
    "untrack_variable",
    "without_merge_call",
]


class BuildFromData:
    """Mixin that builds a model with its method `build_from_data`."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        self.build_from_data(iterator, data_batch)


def symbolic_build(model, data_batch):
    """Builds a model, its losses and its metrics from a batch."""
    model._symbolic_build(data_batch=data_batch)


def untrack_variable(model, variable):
    """Removes a variable from a model."""
    model._untrack_variable(variable)


def reduce_logs(model, logs):
    """Returns the logs of a step as Keras reports them."""
    return model._get_metrics_result_or_logs(logs)


def get_masks(outputs):
    """Returns the masks of a model's outputs in a flat list, with None.

    Slices and outputs of `tf.function` lose the mask of a tensor.
    """
    return [get_keras_mask(t) for t in keras.tree.flatten(outputs)]


def set_masks(outputs, masks):
    """Sets the masks of outputs to the result of `get_masks`."""
    for tensor, mask in zip(keras.tree.flatten(outputs), masks, strict=True):
        if mask is not None:
            set_keras_mask(tensor, mask)


def is_rematerialized(layer):
    """Returns True if a `keras.RematScope` applies to a layer."""
    scope = getattr(layer, "_remat_mode", None)
    if scope is None or scope.mode in (None, "activations"):
        return False
    if scope.mode == "list_of_layers":
        return layer.name in scope.layer_names
    return True


def get_layer_metrics(layer):
    """Returns the metrics of a layer itself."""
    return layer._metrics


def compile_loss_of(model):
    """Returns the `CompileLoss` of a compiled model, or None."""
    return model._compile_loss


def set_compile_loss(model, loss):
    """Replaces the `CompileLoss` of a compiled model."""
    model._compile_loss = loss


def compile_metrics_of(model):
    """Returns the metrics of a compiled model, or None."""
    return model._compile_metrics


def compile_loss_arguments(loss):
    """Returns the constructor arguments of a `CompileLoss` as a dict."""
    return {
        "loss": loss._user_loss,
        "loss_weights": loss._user_loss_weights,
        "output_names": loss.output_names,
    }


def get_losses(loss):
    """Returns the entries of a built `CompileLoss`, one for each loss."""
    return loss._flat_losses


def replace_losses(loss, function):
    """Replaces each loss of a built `CompileLoss` by `function(loss)`."""
    loss._flat_losses = [
        entry._replace(loss=function(entry.loss)) for entry in loss._flat_losses
    ]


def pair_metrics(compiled, y, y_pred, weights):
    """Yields each metric with its `(y, y_pred, weights)`.

    Args:
        compiled: Metrics of `compile`, built.
        y, y_pred, weights: Nested tensors of some examples.
    """
    targets = compiled._flatten_y(y)
    outputs = compiled._flatten_y(y_pred)
    flat = [None] * len(targets)
    if weights is not None:
        flat = compiled._flatten_y(weights)
    if len(flat) < len(targets):
        flat = flat[:1] * len(targets)
    none = [None] * len(targets)
    for groups, all_weights in (
        (compiled._flat_metrics, none),
        (compiled._flat_weighted_metrics, flat),
    ):
        for group, *data in zip(groups, targets, outputs, all_weights):  # noqa: B905
            for metric in group.metrics if group else ():
                yield metric, data


def get_metric_function(metric):
    """Returns the function of a `MeanMetricWrapper` and its arguments."""
    return metric._fn, metric._fn_kwargs


def set_metric_function(metric, function):
    """Sets the function of a `MeanMetricWrapper`."""
    metric._fn = function


@contextlib.contextmanager
def without_merge_call(strategy):
    """Makes Keras apply gradients in the cross-replica context.

    Keras requests a merge call unless a strategy can do without one. In the
    cross-replica context there is nothing left to merge, and only there can an
    update depend on a condition.
    """
    strategy.extended._use_merge_call = lambda: False
    try:
        yield
    finally:
        del strategy.extended._use_merge_call
