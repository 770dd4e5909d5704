"""Distributes single batches, which Keras passes whole to every replica."""

import keras
import tensorflow as tf

from keras_norm.training import tf_internals


def support_single_batches(owner, function):
    """Makes a train or test function split a single batch over replicas.

    Args:
        owner: The model.
        function: Train or test function of Keras. `train_on_batch` and
            `test_on_batch` call it with a generator of one batch, `fit` and
            `evaluate` with an iterator of distributed batches.
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
        # The logs of the step have a value for each replica.
        return tf_internals.reduce_logs(owner, logs)

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
