"""The environment of a run: for its records, and as it was found after it."""

import contextlib
import pathlib
import platform
import random
import re
import resource
import shlex
import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow.python.framework import config as tf_config

import keras_norm


def versions():
    """Versions of what decides the numbers."""
    return {
        "keras_norm": keras_norm.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "tensorflow_datasets": tfds.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def command():
    """The command line, as it can be typed again."""
    return shlex.join(["python", *sys.argv])


def peak_memory_bytes():
    """The most memory that was taken: of a GPU, or of the process on a CPU."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(
            tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"]
            for i in range(len(gpus))
        )
    # getrusage begins with the memory of the process that started this one.
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def prepared(config):
    """Inside, TensorFlow is deterministic where the config asks for it.

    Afterwards the dtype policy, Python's and NumPy's random generators and the
    determinism of TensorFlow are as before the run. Keras and TensorFlow keep
    the seed of the run: neither tells the one that it replaced.
    """
    policy = keras.config.dtype_policy()
    python, numpy = random.getstate(), np.random.get_state()
    was_deterministic = tf_config.is_op_determinism_enabled()
    try:
        if config.deterministic:
            keras.utils.set_random_seed(config.seed)
            tf.config.experimental.enable_op_determinism()
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)
        if not was_deterministic:
            tf_config.disable_op_determinism()
