"""Private names of TensorFlow used by the recipes.

Each name says which versions it was seen in. `tests/recipes/test_tf_internals`
checks that it still exists.
"""

import contextlib

from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.framework import config as tf_config
from tensorflow.python.framework import convert_to_constants

# Seen in TensorFlow 2.16 to 2.21.
CREATE_DEVICE_DATASET = "_create_device_dataset"


@contextlib.contextmanager
def patch_device_datasets(transform):
    """Applies a function to the datasets that feed multiple devices.

    Datasets passed to several devices have no public options. A TensorFlow
    version without the patched function keeps its default options.

    Args:
        transform: `f(dataset)` returns the dataset to use instead.
    """
    create = getattr(multi_device_iterator_ops, CREATE_DEVICE_DATASET, None)
    if create is None:
        yield
        return

    def create_transformed(*args, **kwargs):
        return transform(create(*args, **kwargs))

    setattr(
        multi_device_iterator_ops, CREATE_DEVICE_DATASET, create_transformed
    )
    try:
        yield
    finally:
        setattr(multi_device_iterator_ops, CREATE_DEVICE_DATASET, create)


def freeze_variables(function):
    """Returns a concrete function with its variables turned into constants.

    Uses `convert_variables_to_constants_v2`, seen in TensorFlow 2.16 to 2.21.
    """
    return convert_to_constants.convert_variables_to_constants_v2(function)


def set_health_check_interval(strategy, seconds):
    """Sets the seconds between health checks of the other workers.

    Sets `MultiWorkerMirroredStrategy.extended._check_health_interval`, seen in
    TensorFlow 2.16 to 2.21.
    """
    strategy.extended._check_health_interval = seconds


def is_op_determinism_enabled():
    """Returns True if operations are deterministic.

    TensorFlow 2.16 to 2.21 have no public function that tells or resets it.
    """
    return tf_config.is_op_determinism_enabled()


def disable_op_determinism():
    """Undoes `tf.config.experimental.enable_op_determinism`."""
    tf_config.disable_op_determinism()


def get_onnx_optimizers():
    """Returns tf2onnx's optimizers of an ONNX graph by name.

    Uses `_get_optimizers`, seen in tf2onnx 1.16 and 1.17.
    """
    from tf2onnx import optimizer

    return dict(optimizer._get_optimizers())
