"""The processes of a run on several machines, as TF_CONFIG names them."""

import contextlib
import dataclasses
import json
import os
import re

import numpy as np

from recipes.errors import RecipeError

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Workers:
    """Which of the workers this process is.

    Attributes:
        addresses: `host:port` of every worker; empty for a single process.
        index: Which of them this one is.
    """

    addresses: tuple = ()
    index: int = 0

    @property
    def is_chief(self):
        """Whether this process writes the files of the run."""
        return self.index == 0


def find(config):
    """The `Workers` of a run.

    Raises:
        RecipeError: if `--strategy=multi_worker` finds no TF_CONFIG that names
            the workers and this one.
    """
    if config.strategy != "multi_worker":
        return Workers()
    text = os.environ.get("TF_CONFIG", "")
    try:
        settings = json.loads(text)
        cluster, task = settings["cluster"], settings["task"]
        addresses = [*cluster.get("chief", ()), *cluster.get("worker", ())]
        offset = len(cluster.get("chief", ())) * (task["type"] == "worker")
        index = int(task["index"]) + offset
        if task["type"] not in ("chief", "worker") or not addresses:
            raise ValueError(task["type"])
        addresses[index]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecipeError(
            "--strategy=multi_worker takes the workers from the variable "
            f"TF_CONFIG, one for each process, such as {_EXAMPLE}. Received: "
            f"TF_CONFIG={text!r}"
        ) from error
    return Workers(tuple(addresses), index)


class Broadcast:
    """What the chief knows, on every worker.

    Args:
        strategy: The strategy of the run.
        workers: The `Workers`.
    """

    def __init__(self, strategy, workers):
        self.strategy = strategy
        self.workers = workers

    @property
    def is_needed(self):
        """Whether there is more than one worker."""
        return len(self.workers.addresses) > 1

    def array(self, array):
        """The chief's array; the others give one of that shape and dtype."""
        if not self.is_needed:
            return array
        # What collectives do not know travels as what they know.
        wide = array.dtype if array.dtype.kind == "f" else np.int64
        mine = array.astype(wide) if self.workers.is_chief else 0
        return self._sum(np.zeros(array.shape, wide) + mine).astype(array.dtype)

    def facts(self, facts):
        """The chief's dict, which JSON can hold; the others' is ignored."""
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        length = int(self.array(np.array(text.size)))
        text = np.resize(text, length) if not self.workers.is_chief else text
        return json.loads(self.array(text).tobytes())

    def any(self, flag):
        """Whether the flag is set on any worker."""
        if not self.is_needed:
            return flag
        return bool(self._sum(np.array(float(flag), np.float32)) > 0)

    def _sum(self, array):
        import tensorflow as tf

        def of_replica(context):
            replicas = self.strategy.num_replicas_in_sync
            local = replicas // len(self.workers.addresses)
            is_first = context.replica_id_in_sync_group % local == 0
            return tf.constant(array if is_first else np.zeros_like(array))

        values = self.strategy.experimental_distribute_values_from_function(
            of_replica
        )
        total = self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, values, axis=None
        )
        return np.asarray(total.numpy())


def require_same_config(config, broadcast):
    """Refuses workers that were started with other settings than the chief.

    Raises:
        RecipeError: naming the settings.
    """
    own = {**config.to_dict(), "workdir": None, "data_dir": None}
    chief = broadcast.facts(own)
    differences = [
        f"{name} is {chief[name]!r} there and {value!r} here"
        for name, value in json.loads(json.dumps(own)).items()
        if chief[name] != value
    ]
    if differences:
        raise RecipeError(
            "the chief was started with other flags: "
            f"{'; '.join(differences)}. Give all workers the same."
        )


@contextlib.contextmanager
def watched(workers):
    """Turns the end of another worker into a `RecipeError`."""
    from tensorflow import errors

    try:
        yield
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.InternalError,
        errors.CancelledError,
        errors.DeadlineExceededError,
    ) as error:
        if len(workers.addresses) < 2:
            raise
        reason = re.sub(r"\{\{.*?\}\}", "", str(error)).strip().splitlines()[0]
        raise RecipeError(
            f"worker {workers.index} of {len(workers.addresses)} lost another "
            f"one ({', '.join(workers.addresses)}): {reason}. Start all of "
            "them again with the same command."
        ) from error
