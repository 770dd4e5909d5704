"""Single batches, which Keras hands to every replica as a whole."""

import keras
import tensorflow as tf


def support_single_batches(owner, function):
    """A train or test function that also splits a batch over the replicas.

    Args:
        owner: The model.
        function: What `train_on_batch` and `test_on_batch` of Keras call with a
            generator of one batch, and `fit` and `evaluate` with an iterator of
            distributed batches.
    """

    strategy = owner.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return function

    def run(iterator):
        if isinstance(
            iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)
        ):
            return function(iterator)
        (batch,) = iterator
        logs = function(_distributed(strategy, batch))
        # Those of the step are of each replica.
        return owner._get_metrics_result_or_logs(logs)

    return run


def _distributed(strategy, batch):
    batch = keras.tree.map_structure(
        lambda t: None if t is None else tf.convert_to_tensor(t), batch
    )
    batch = keras.utils.pack_x_y_sample_weight(*batch)
    dataset = tf.data.Dataset.from_tensors(batch)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    dataset = dataset.with_options(options)
    return iter(strategy.experimental_distribute_dataset(dataset))
