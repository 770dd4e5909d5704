"""Divides the GPUs or cores of this machine among concurrent runs."""

import dataclasses
import itertools
import os
import pathlib
import re

from recipes.errors import RecipeError


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


def make_shares(num_jobs):
    """Makes one equal `Share` for each concurrent run.

    Without a GPU each run gets its own cores, since runs that share cores wait
    for each other within every operation.

    Raises:
        RecipeError: if there are more runs than GPUs or cores.
    """
    gpus, cores = _find_gpus(), find_cores()
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


def find_cores():
    """Lists the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count()))


def _find_gpus():
    """Lists the visible GPUs without importing TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [path.name for path in pathlib.Path("/dev").glob("nvidia*")]
        numbers = [re.fullmatch(r"nvidia(\d+)", name) for name in names]
        return sorted((found[1] for found in numbers if found), key=int)
    names = [name.strip() for name in visible.split(",")]
    # CUDA ignores an invalid entry such as -1 and everything after it.
    is_gpu = re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch
    return list(itertools.takewhile(is_gpu, names))
