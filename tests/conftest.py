"""Configures four logical CPU devices in place of accelerators for tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras  # noqa: E402
import pytest  # noqa: E402

NUM_DEVICES = 4

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
    )
    # Starts TensorFlow, so that no recipe under test splits the CPU anew.
    assert len(tf.config.list_logical_devices("CPU")) == NUM_DEVICES
else:
    collect_ignore = [
        "recipes",
        "training",
        "test_distribution.py",
        "test_export.py",
        "test_scale.py",
    ]


@pytest.fixture(autouse=True)
def reset_state():
    """Every test starts from the same seed and dtype policy."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
