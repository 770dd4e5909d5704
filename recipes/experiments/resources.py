"""What of a machine each of several runs at a time gets: GPUs, or cores."""

import dataclasses
import itertools
import os
import pathlib
import re

from recipes.errors import RecipeError

# A GPU in CUDA_VISIBLE_DEVICES.
_GPU = re.compile(r"\d+|(GPU|MIG)-\S+")


@dataclasses.dataclass(frozen=True)
class Share:
    """The devices of one run.

    Attributes:
        environment: Dict of environment variables that give it its GPUs.
        cores: The processor cores that it runs on; empty for all.
        num_gpus: How many GPUs it has.
    """

    environment: dict
    cores: tuple
    num_gpus: int


def make(num_jobs, num_gpus=None, cores=None):
    """The shares of as many runs at a time.

    On a machine with GPUs each run gets as many as the others. On one without,
    each gets cores of its own, or runs at a time would wait for each other in
    the middle of every operation.

    Args:
        num_jobs: How many runs at a time.
        num_gpus: Number of GPUs; None looks for them.
        cores: The cores that may be used; None takes all that this process has.

    Raises:
        RecipeError: if there are more jobs than GPUs or cores.
    """
    gpus = _gpus() if num_gpus is None else [str(i) for i in range(num_gpus)]
    cores = _cores() if cores is None else list(cores)
    parts, kind = (gpus, "GPUs") if gpus else (cores, "cores")
    if num_jobs > len(parts):
        raise RecipeError(
            f"--jobs={num_jobs} runs at a time need as many {kind}, and "
            f"{len(parts)} may be used."
        )
    each = len(parts) // num_jobs
    taken = [parts[i * each : (i + 1) * each] for i in range(num_jobs)]
    if gpus:
        return [
            Share({"CUDA_VISIBLE_DEVICES": ",".join(part)}, (), each)
            for part in taken
        ]
    if num_jobs == 1:
        return [Share({}, (), 0)]
    return [Share({}, tuple(part), 0) for part in taken]


def _gpus():
    """Names of the GPUs that may be used, without asking TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA reads up to the first that it does not know, such as -1.
        return list(itertools.takewhile(_GPU.fullmatch, names))
    devices = pathlib.Path("/dev").glob("nvidia[0-9]*")
    numbers = [re.fullmatch(r"nvidia(\d+)", path.name) for path in devices]
    return sorted((n[1] for n in numbers if n), key=int)


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
