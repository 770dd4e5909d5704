"""Adapts metrics of `compile` to several replicas with per-replica batches.

The variables of a metric are summed over replicas, which is right for sums over
examples. A function that returns one number per batch needs more.
"""

import keras
import tensorflow as tf

from keras_norm.distribution import all_reduce_sum
from keras_norm.training import infer_reductions
from keras_norm.training import reductions
from keras_norm.training import tf_internals


class BatchMetricFunction:
    """A metric function of one number per batch, equal on every replica.

    Args:
        function: `f(y_true, y_pred)`.
        reduction: Its reduction, see `infer_reductions`.
    """

    def __init__(self, function, reduction):
        self.function, self.reduction = function, reduction

    def __call__(self, y_true, y_pred, **kwargs):
        value = self.function(y_true, y_pred, **kwargs)
        if tf.distribute.get_replica_context() is None:
            return value
        size = tf.shape(keras.tree.flatten(y_pred)[0])[0]
        value = tf.where(size > 0, tf.cast(value, tf.float32), 0.0)
        if self.reduction == reductions.SUM:
            return all_reduce_sum([value])[0]
        size = tf.cast(size, tf.float32)
        return tf.math.divide_no_nan(*all_reduce_sum([value * size, size]))


def adapt_metrics(owner, x, y, weights):
    """Makes a model's metrics right on several replicas.

    Args:
        owner: The `ReplicaModel`.
        x, y, weights: Some examples.

    Raises:
        ValueError: for a metric that is not a sum or mean over examples.
    """
    compiled = tf_internals.compile_metrics_of(owner)
    if (
        compiled is None
        or tf.distribute.get_strategy().num_replicas_in_sync == 1
    ):
        return
    y_pred, *_ = infer_reductions.forward_examples(owner, x)
    slices = infer_reductions.group_slices(infer_reductions.count_examples(x))
    for metric, data in tf_internals.pair_metrics(compiled, y, y_pred, weights):
        _adapt_metric(metric, data, slices)


def _adapt_metric(metric, data, slices):
    batches = [infer_reductions.slice_examples(data, which) for which in slices]
    size = infer_reductions.count_examples(data)
    if isinstance(metric, keras.metrics.MeanMetricWrapper):
        function, kwargs = tf_internals.get_metric_function(metric)
        if isinstance(function, BatchMetricFunction):
            return
        values = [function(y, y_pred, **kwargs) for y, y_pred, _ in batches]
        if len(values[0].shape) == 0:
            reduction = infer_reductions.infer_reduction(*values, size)
            if reduction is None:
                raise reductions.reduction_error(f"the metric `{metric.name}`")
            tf_internals.set_metric_function(
                metric, BatchMetricFunction(function, reduction)
            )
            return
    if size == 1 or any(v.aggregation != "sum" for v in metric.variables):
        return
    empty = [keras.ops.zeros(v.shape, v.dtype) for v in metric.variables]
    whole, first, rest = (
        metric.stateless_update_state(empty, *batch) for batch in batches
    )
    if not all(map(infer_reductions.adds_up, whole, first, rest)):
        raise reductions.reduction_error(f"the metric `{metric.name}`")
