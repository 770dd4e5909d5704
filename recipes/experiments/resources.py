"""Divides the GPUs or cores of this machine among concurrent runs."""

import dataclasses
import itertools
import os
import pathlib
import re

from recipes.errors import RecipeError

# An entry of CUDA_VISIBLE_DEVICES.
_GPU = re.compile(r"\d+|(GPU|MIG)-\S+")


@dataclasses.dataclass(frozen=True)
class Share:
    """The devices of one run.

    Attributes:
        environment: Dict of the environment variables that select its GPUs.
        cores: Processor cores to run on; empty for all of them.
        num_gpus: Number of its GPUs.
    """

    environment: dict
    cores: tuple
    num_gpus: int


def make_shares(num_jobs, num_gpus=None, cores=None):
    """Makes one equal `Share` for each concurrent run.

    Without a GPU each run gets its own cores, since runs that share cores wait
    for each other within every operation.

    Args:
        num_jobs: Number of concurrent runs.
        num_gpus: Number of GPUs; None detects them.
        cores: Available cores; None takes all cores of this process.

    Raises:
        RecipeError: if there are more runs than GPUs or cores.
    """
    gpus = _find_gpus() if num_gpus is None else map(str, range(num_gpus))
    gpus = list(gpus)
    cores = _find_cores() if cores is None else list(cores)
    devices, kind = (gpus, "GPUs") if gpus else (cores, "cores")
    if num_jobs > len(devices):
        raise RecipeError(
            f"--jobs={num_jobs} concurrent runs need at least {num_jobs} "
            f"{kind}, but {len(devices)} are available. Reduce --jobs."
        )
    size = len(devices) // num_jobs
    parts = [devices[i * size : (i + 1) * size] for i in range(num_jobs)]
    if gpus:
        variable = "CUDA_VISIBLE_DEVICES"
        return [Share({variable: ",".join(part)}, (), size) for part in parts]
    return [Share({}, tuple(part) if num_jobs > 1 else (), 0) for part in parts]


def _find_gpus():
    """Lists the visible GPUs without importing TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores an invalid entry such as -1 and everything after it.
        return itertools.takewhile(_GPU.fullmatch, names)
    devices = pathlib.Path("/dev").glob("nvidia[0-9]*")
    numbers = [re.fullmatch(r"nvidia(\d+)", path.name) for path in devices]
    return sorted((n[1] for n in numbers if n), key=int)


def _find_cores():
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
