"""Devices and replicas."""

import tensorflow as tf

from recipes.errors import RecipeError

# Seconds from one look at the other workers to the next: a run ends within a
# minute of the end of one of them.
HEALTH_CHECK_INTERVAL = 10


def make(config):
    """The `tf.distribute` strategy of a run.

    Call it before anything else touches TensorFlow: a CPU can be split, and
    workers find each other, only until then.

    Raises:
        RecipeError: if there are too few devices, or the global batch cannot be
            split evenly.
    """
    if config.strategy == "multi_worker":
        strategy = _multi_worker(config)
    elif config.strategy == "tpu":
        strategy = _tpu()
    else:
        strategy = _one_machine(config)
    replicas = strategy.num_replicas_in_sync
    if config.global_batch_size % replicas:
        raise RecipeError(
            f"--global_batch_size={config.global_batch_size} cannot be split "
            f"evenly over {replicas} replicas: choose a multiple of {replicas}."
        )
    if (config.eval_batch_size or replicas) % replicas:
        raise RecipeError(
            f"--eval_batch_size={config.eval_batch_size} cannot be split "
            f"evenly over {replicas} replicas: choose a multiple of {replicas}."
        )
    share = config.global_batch_size // replicas
    if share % config.grad_accum_steps:
        raise RecipeError(
            f"--grad_accum_steps={config.grad_accum_steps} must divide the "
            f"{share} images of a replica (--global_batch_size="
            f"{config.global_batch_size} over {replicas} replicas)."
        )
    return strategy


def _one_machine(config):
    if config.virtual_replicas is not None:
        _split_cpu(config.virtual_replicas)
    devices = _devices(config)
    if config.strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    # The default reduction breaks on several CPU devices as soon as a second
    # strategy lives in the process.
    on_cpu = "CPU" in devices[0]
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(devices, reduction)


def _multi_worker(config):
    """One replica a GPU of every worker, or one a worker without any."""
    for flag in ("num_replicas", "virtual_replicas"):
        if getattr(config, flag) is not None:
            raise RecipeError(
                "--strategy=multi_worker takes every GPU of a worker, or its "
                f"CPU: leave out --{flag}, or unset that of the preset with "
                f"--{flag}=none. CUDA_VISIBLE_DEVICES hides GPUs. "
                f"Received: {flag}={getattr(config, flag)}"
            )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RecipeError(
            f"--strategy=multi_worker could not start: {error}"
        ) from error
    strategy.extended._check_health_interval = HEALTH_CHECK_INTERVAL
    return strategy


def _tpu():
    """Every TPU core that this machine knows of. Nobody has run it yet."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(
            f"--strategy=tpu found no TPU: {reason}. On a TPU VM, TPU_NAME "
            "must name it, or be local."
        ) from error
    print(
        "TPU: the strategy is built as TensorFlow documents it; training on "
        "one has not been tested."
    )
    return tf.distribute.TPUStrategy(resolver)


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
