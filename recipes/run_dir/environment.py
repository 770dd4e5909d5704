"""The environment of a run: versions, command, memory and process state."""

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

import keras_norm
from recipes import tf_internals


def versions():
    """Returns the versions of the libraries that affect results."""
    return {
        "keras_norm": keras_norm.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "tensorflow_datasets": tfds.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def command():
    """Returns the command line as it can be typed in a shell."""
    return shlex.join(["python", *sys.argv])


def peak_memory_bytes():
    """Returns the peak memory of a GPU, or of the process without GPUs."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(
            tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"]
            for i in range(len(gpus))
        )
    # getrusage includes the peak memory of the parent process.
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def configure_process(deterministic, seed):
    """Makes TensorFlow deterministic on request, and restores global state.

    On exit the dtype policy, the random generators of Python and NumPy and the
    determinism of TensorFlow are restored. Keras and TensorFlow keep the seed
    of the run: neither exposes the previous one.

    Args:
        deterministic: Whether to use deterministic operations.
        seed: Random seed, set before operations become deterministic.
    """
    policy = keras.config.dtype_policy()
    python, numpy = random.getstate(), np.random.get_state()
    was_deterministic = tf_internals.is_op_determinism_enabled()
    try:
        if deterministic:
            keras.utils.set_random_seed(seed)
            tf.config.experimental.enable_op_determinism()
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)
        if not was_deterministic:
            tf_internals.disable_op_determinism()
