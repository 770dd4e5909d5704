"""Input pipelines without TensorFlow's autotuner.

An iterator that ends waits for the thread that tunes it. That thread can miss
the call to end, and then sleeps on, for up to a minute, after every evaluation
and at the end of a run (seen with TensorFlow 2.21). Without a tuner a map runs
on as many threads as there are cores, up to 16.
"""

import contextlib

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops


def without_autotune(dataset):
    """The dataset, not tuned."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextlib.contextmanager
def off_on_devices():
    """Inside, what hands out batches to several devices is not tuned either.

    TensorFlow has no option for it; where a version of it has not this
    function, it tunes as it always does.
    """
    name = "_create_device_dataset"
    create = getattr(multi_device_iterator_ops, name, None)
    if create is None:
        yield
        return

    def create_untuned(*args, **kwargs):
        return without_autotune(create(*args, **kwargs))

    setattr(multi_device_iterator_ops, name, create_untuned)
    try:
        yield
    finally:
        setattr(multi_device_iterator_ops, name, create)
