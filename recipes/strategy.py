"""Devices and replicas."""

import tensorflow as tf

from recipes.errors import RecipeError


def make(config):
    """The `tf.distribute` strategy of a run.

    Call it before anything else touches TensorFlow: a CPU can be split only
    until then.

    Raises:
        RecipeError: if there are too few devices, or the global batch cannot be
            split evenly.
    """
    if config.virtual_replicas is not None:
        _split_cpu(config.virtual_replicas)
    devices = _devices(config)
    if config.global_batch_size % len(devices):
        raise RecipeError(
            f"--global_batch_size={config.global_batch_size} cannot be split "
            f"evenly over {len(devices)} replicas: choose a multiple of "
            f"{len(devices)}."
        )
    if config.strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    # The default reduction breaks on several CPU devices as soon as a second
    # strategy lives in the process.
    on_cpu = "CPU" in devices[0]
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(devices, reduction)


def _devices(config):
    kind = "CPU"
    if config.virtual_replicas is None and tf.config.list_logical_devices(
        "GPU"
    ):
        kind = "GPU"
    there = len(tf.config.list_logical_devices(kind))
    default = {"CPU": config.virtual_replicas or 1, "GPU": there}[kind]
    wanted = config.num_replicas or default
    if config.strategy == "one_device":
        if wanted > 1 and config.num_replicas:
            raise RecipeError(
                "--strategy=one_device has one replica. "
                f"Received: --num_replicas={config.num_replicas}"
            )
        wanted = 1
    if wanted > there:
        hint = " (--virtual_replicas splits a CPU)" if kind == "CPU" else ""
        raise RecipeError(
            f"{wanted} replicas need as many devices, and there are {there} of "
            f"kind {kind}{hint}."
        )
    return [f"{kind}:{i}" for i in range(wanted)]


def _split_cpu(num_devices):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
    try:
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError as error:
        # TensorFlow is running already, with devices that may do.
        if len(tf.config.list_logical_devices("CPU")) < num_devices:
            raise RecipeError(
                "the CPU can be split only before TensorFlow starts. "
                f"Received: --virtual_replicas={num_devices}"
            ) from error
