"""Multi-worker training: the workers of TF_CONFIG and what they exchange."""

import contextlib
import dataclasses
import json
import os
import re

import numpy as np

from recipes.errors import RecipeError
from recipes.errors import first_line

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Workers:
    """The workers of a run.

    Attributes:
        addresses: Tuple with the `host:port` of every worker; empty for a run
            with a single process.
        index: Index of this worker.
    """

    addresses: tuple = ()
    index: int = 0

    @property
    def is_chief(self):
        """True if this process writes the files of the run."""
        return self.index == 0

    def describe(self):
        """Returns a line: which worker this is, and which others it awaits."""
        others = [a for i, a in enumerate(self.addresses) if i != self.index]
        return (
            f"worker {self.index} of {len(self.addresses)}: waiting for "
            f"{', '.join(others)}"
        )


def read_workers(strategy_name):
    """Returns the `Workers` of a run.

    Args:
        strategy_name: Value of `--strategy`.

    Raises:
        RecipeError: if the strategy is `"multi_worker"` and TF_CONFIG does not
            name the workers and this one.
    """
    if strategy_name != "multi_worker":
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


def is_chief(strategy_name):
    """Returns True if this process writes the files of the run.

    Also returns True if TF_CONFIG is invalid.

    Args:
        strategy_name: Value of `--strategy`.
    """
    try:
        return read_workers(strategy_name).is_chief
    except RecipeError:
        return True


class ChiefBroadcast:
    """Sends values of the chief to all workers.

    Args:
        strategy: The `tf.distribute` strategy of the run.
        workers: The `Workers`.
    """

    def __init__(self, strategy, workers):
        self.strategy = strategy
        self.workers = workers

    @property
    def is_needed(self):
        """True if there is more than one worker."""
        return len(self.workers.addresses) > 1

    def array(self, array):
        """Returns the chief's array.

        Other workers pass an array of the same shape and dtype.
        """
        if not self.is_needed:
            return array
        # Collectives do not support small integers and booleans.
        wide = array.dtype if array.dtype.kind == "f" else np.int64
        own = array.astype(wide) if self.workers.is_chief else 0
        return self._sum(np.zeros(array.shape, wide) + own).astype(array.dtype)

    def json(self, value):
        """Returns the chief's JSON value on all workers.

        Args:
            value: A value that JSON can hold.
        """
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        length = int(self.array(np.array(text.size)))
        text = np.resize(text, length) if not self.workers.is_chief else text
        return json.loads(self.array(text).tobytes())

    def any(self, flag):
        """Returns True if the flag is set on any worker."""
        if not self.is_needed:
            return flag
        return bool(self._sum(np.array(float(flag), np.float32)) > 0)

    def _sum(self, array):
        import tensorflow as tf

        def value_on_replica(context):
            replicas = self.strategy.num_replicas_in_sync
            local = replicas // len(self.workers.addresses)
            is_first = context.replica_id_in_sync_group % local == 0
            return tf.constant(array if is_first else np.zeros_like(array))

        values = self.strategy.experimental_distribute_values_from_function(
            value_on_replica
        )
        total = self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, values, axis=None
        )
        return np.asarray(total.numpy())


def require_same_config(config, broadcast):
    """Checks that all workers were started with the settings of the chief.

    Raises:
        RecipeError: naming the settings that differ.
    """
    own = {**config.to_dict(), "workdir": None, "data_dir": None}
    chief = broadcast.json(own)
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
def explain_lost_workers(workers):
    """Turns errors after the loss of another worker into a `RecipeError`."""
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
        reason = first_line(re.sub(r"\{\{.*?\}\}", "", str(error)))
        raise RecipeError(
            f"worker {workers.index} of {len(workers.addresses)} lost another "
            f"one ({', '.join(workers.addresses)}): {reason}. Start all of "
            "them again with the same command."
        ) from error
