"""Describes the devices that a run trains on."""

import pathlib

import tensorflow as tf

NVIDIA = pathlib.Path("/dev/nvidiactl")


def describe(strategy):
    """The devices of a strategy in a line.

    Such as `1 CPU as 2 replicas; TensorFlow sees no GPU` or `2 GPUs (NVIDIA
    H100)`.

    Args:
        strategy: The `tf.distribute` strategy of the run.
    """
    replicas = strategy.num_replicas_in_sync
    used = [
        tf.DeviceSpec.from_string(name)
        for name in strategy.extended.worker_devices
    ]
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return _count(replicas, "TPU core")
    gpus = tf.config.list_physical_devices("GPU")
    if used[0].device_type == "GPU":
        text = f"{_count(len(used), 'GPU')} ({_names(gpus[: len(used)])})"
        if len(used) < len(gpus):
            text += f" of {len(gpus)}"
    else:
        text = "1 CPU" + (f" as {len(used)} replicas" * (len(used) > 1))
        text += f"; {_why_no_gpu(gpus)}"
    workers = replicas // len(used)
    return text if workers == 1 else f"{workers} workers, each {text}"


def _why_no_gpu(gpus):
    if gpus:
        there = f"{_count(len(gpus), 'GPU')} ({_names(gpus)})"
        return f"{there} not used"
    if NVIDIA.exists():
        return (
            "TensorFlow sees no GPU, although there is one: "
            "pip install 'tensorflow[and-cuda]'"
        )
    return "TensorFlow sees no GPU"


def _names(gpus):
    """The names of GPUs, each kind once."""
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "?")
        for gpu in gpus
    ]
    return ", ".join(dict.fromkeys(names))


def _count(number, noun):
    return f"{number} {noun}{'s' * (number > 1)}"
