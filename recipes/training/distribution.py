"""The distribution strategy of a run: devices and replicas."""

import pathlib

import tensorflow as tf

from recipes import tf_internals
from recipes.errors import RecipeError
from recipes.errors import first_line
from recipes.training import signals

# Seconds from one health check of the other workers to the next: a run ends
# within a minute after one of them.
HEALTH_CHECK_INTERVAL = 10
NVIDIA_DEVICE = pathlib.Path("/dev/nvidiactl")


def make_strategy(config):
    """Returns the `tf.distribute` strategy of a run.

    Must be called before anything else uses TensorFlow: after that the CPU
    cannot be split, and workers cannot connect to each other.

    Raises:
        RecipeError: if there are too few devices, or a batch cannot be split
            evenly.
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
    replica_batch_size = config.global_batch_size // replicas
    if replica_batch_size % config.grad_accum_steps:
        raise RecipeError(
            f"--grad_accum_steps={config.grad_accum_steps} must divide the "
            f"{replica_batch_size} images of a replica (--global_batch_size="
            f"{config.global_batch_size} over {replicas} replicas)."
        )
    return strategy


def _one_machine(config):
    if config.virtual_replicas is not None:
        _split_cpu(config.virtual_replicas)
    devices = _devices(config)
    if config.strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    # The default reduction fails on several CPU devices if the process has a
    # second strategy.
    on_cpu = "CPU" in devices[0]
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(devices, reduction)


def _multi_worker(config):
    """Returns a strategy with one replica per GPU, or one per CPU worker."""
    for flag in ("num_replicas", "virtual_replicas"):
        if getattr(config, flag) is not None:
            raise RecipeError(
                "--strategy=multi_worker takes every GPU of a worker, or its "
                f"CPU: leave out --{flag}, or unset the preset's value with "
                f"--{flag}=none. CUDA_VISIBLE_DEVICES hides GPUs. "
                f"Received: {flag}={getattr(config, flag)}"
            )
    try:
        # Returns once all workers are connected.
        with signals.exit_at_once():
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RecipeError(
            f"--strategy=multi_worker could not start: {error}"
        ) from error
    tf_internals.set_health_check_interval(strategy, HEALTH_CHECK_INTERVAL)
    return strategy


def _tpu():
    """Returns a strategy for all TPU cores. Untested."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = first_line(error)
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
    available = len(tf.config.list_logical_devices(kind))
    default = {"CPU": config.virtual_replicas or 1, "GPU": available}[kind]
    wanted = config.num_replicas or default
    if config.strategy == "one_device":
        if wanted > 1 and config.num_replicas:
            raise RecipeError(
                "--strategy=one_device has one replica. "
                f"Received: --num_replicas={config.num_replicas}"
            )
        wanted = 1
    if wanted > available:
        hint = " (--virtual_replicas splits a CPU)" if kind == "CPU" else ""
        raise RecipeError(
            f"{wanted} replicas need as many devices, and {available} of kind "
            f"{kind} are available{hint}."
        )
    return [f"{kind}:{i}" for i in range(wanted)]


def _split_cpu(num_devices):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
    try:
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError as error:
        # TensorFlow is initialized already, perhaps with enough devices.
        if len(tf.config.list_logical_devices("CPU")) < num_devices:
            raise RecipeError(
                "the CPU can be split only before TensorFlow starts. "
                f"Received: --virtual_replicas={num_devices}"
            ) from error


def describe_devices(strategy):
    """Returns a line about the devices of a strategy.

    Examples are `1 CPU as 2 replicas; TensorFlow sees no GPU` and `2 GPUs
    (NVIDIA H100)`.

    Args:
        strategy: The `tf.distribute` strategy of the run.
    """
    replicas = strategy.num_replicas_in_sync
    used = [
        tf.DeviceSpec.from_string(name)
        for name in strategy.extended.worker_devices
    ]
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return _format_count(replicas, "TPU core")
    gpus = tf.config.list_physical_devices("GPU")
    if used[0].device_type == "GPU":
        names = _gpu_names(gpus[: len(used)])
        text = f"{_format_count(len(used), 'GPU')} ({names})"
        if len(used) < len(gpus):
            text += f" of {len(gpus)}"
    else:
        text = "1 CPU" + (f" as {len(used)} replicas" * (len(used) > 1))
        text += f"; {_explain_cpu(gpus)}"
    workers = replicas // len(used)
    return text if workers == 1 else f"{workers} workers, each {text}"


def _explain_cpu(gpus):
    if gpus:
        return (
            f"{_format_count(len(gpus), 'GPU')} ({_gpu_names(gpus)}) not used"
        )
    if NVIDIA_DEVICE.exists():
        return (
            "TensorFlow sees no GPU, although there is one: "
            "pip install 'tensorflow[and-cuda]'"
        )
    return "TensorFlow sees no GPU"


def _gpu_names(gpus):
    """Returns the distinct names of GPUs."""
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "?")
        for gpu in gpus
    ]
    return ", ".join(dict.fromkeys(names))


def _format_count(number, noun):
    return f"{number} {noun}{'s' * (number > 1)}"
