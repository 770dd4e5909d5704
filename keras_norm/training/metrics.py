"""Metrics of `compile` on several replicas, each with a share of the batch.

Variables of a metric are summed over the replicas, which is right for whatever
adds up over examples. A function of one number a batch does not.
"""

import keras
import tensorflow as tf

from keras_norm.training import infer_reductions
from keras_norm.training import reductions
from keras_norm.training.collectives import all_reduce_sum


class BatchMetricFunction:
    """A metric function of one number a batch, the same on every replica.

    Args:
        function: `f(y_true, y_pred)`.
        law: How shares of a batch make the batch, see `additivity`.
    """

    def __init__(self, function, law):
        self.function, self.law = function, law

    def __call__(self, y_true, y_pred, **kwargs):
        value = self.function(y_true, y_pred, **kwargs)
        if tf.distribute.get_replica_context() is None:
            return value
        rows = tf.shape(keras.tree.flatten(y_pred)[0])[0]
        value = tf.where(rows > 0, tf.cast(value, tf.float32), 0.0)
        if self.law == reductions.SUM:
            return all_reduce_sum([value])[0]
        rows = tf.cast(rows, tf.float32)
        return tf.math.divide_no_nan(*all_reduce_sum([value * rows, rows]))


def adapt_metrics(compiled, y, y_pred, weights, slices):
    """Makes metrics right on several replicas.

    Args:
        compiled: Keras' metrics of `compile`, built.
        y, y_pred, weights: Of some examples.
        slices: Those of all, of the first and of all others.

    Raises:
        ValueError: for a metric that does not add up over examples.
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
                _adapt(metric, data, slices)


def _adapt(metric, data, slices):
    batches = [infer_reductions.slice_examples(data, which) for which in slices]
    rows = infer_reductions.count_examples(data)
    if isinstance(metric, keras.metrics.MeanMetricWrapper):
        if isinstance(metric._fn, BatchMetricFunction):
            return
        values = [
            metric._fn(y, y_pred, **metric._fn_kwargs)
            for y, y_pred, _ in batches
        ]
        if len(values[0].shape) == 0:
            law = infer_reductions.infer_reduction(*values, rows)
            if law is None:
                raise reductions.reduction_error(f"the metric `{metric.name}`")
            metric._fn = BatchMetricFunction(metric._fn, law)
            return
    if rows == 1 or any(v.aggregation != "sum" for v in metric.variables):
        return
    empty = [keras.ops.zeros(v.shape, v.dtype) for v in metric.variables]
    whole, first, rest = (
        metric.stateless_update_state(empty, *batch) for batch in batches
    )
    if not all(map(infer_reductions.adds_up, whole, first, rest)):
        raise reductions.reduction_error(f"the metric `{metric.name}`")
