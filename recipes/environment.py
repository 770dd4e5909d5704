"""What a run ran on, for its records."""

import platform
import resource
import shlex
import sys

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def prepare(config):
    """Makes TensorFlow deterministic, where the config asks for it."""
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
