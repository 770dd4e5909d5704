"""Compiled training steps, several of which run without returning to Python."""

import tensorflow as tf

from recipes import tf_internals
from recipes.data.input_pipeline import without_autotune


class CompiledSteps:
    """The compiled training and evaluation steps of a run.

    Args:
        trainer: The `Trainer`, compiled.
        data: The `Data` of the run.
        strategy: The `tf.distribute` strategy.
        is_timed: Whether steps measure how long they wait for input. This is
            impossible with deterministic operations.
        always_loops: Whether the compiled loop runs single steps as well, so
            that only one function is compiled.
    """

    def __init__(
        self, trainer, data, strategy, is_timed=True, always_loops=False
    ):
        self.trainer = trainer
        self.data = data
        self.strategy = strategy
        self.is_timed = is_timed
        self.always_loops = always_loops
        # A compiled loop takes slightly longer than its steps.
        self._train_one = tf.function(self._one_step, autograph=False)
        self._train = tf.function(self._many_steps, autograph=True)
        self._evaluate = trainer.make_evaluator(self)

    def training_batches(self, first_step):
        """Returns an iterator over per-replica batches, starting at a step."""
        return self.distribute(
            lambda context: self.data.train(first_step, context)
        )

    def train(self, batches, num_steps):
        """Runs training steps.

        Args:
            batches: Iterator from `training_batches`.
            num_steps: Number of steps.

        Returns:
            `(logs, waited)`: the metrics of the last step and the seconds for
            which the steps waited for input, as tensors on the device.
        """
        if num_steps == 1 and not self.always_loops:
            return self._train_one(batches, [])
        return self._train(batches, tf.constant(num_steps, tf.int32))

    def evaluate(self):
        """Evaluates and returns a dict of metrics."""
        return self._evaluate()

    def distribute(self, make_dataset):
        """Returns an iterator over per-replica batches.

        Args:
            make_dataset: `f(context)` returns a dataset, as in `Data`.
        """
        with tf_internals.patch_device_datasets(without_autotune):
            return iter(
                self.strategy.distribute_datasets_from_function(make_dataset)
            )

    def _many_steps(self, batches, num_steps):
        logs = {name: tf.zeros([]) for name in self.trainer.METRICS}
        waited = tf.zeros([], tf.float64)
        done = self._num_updates()
        for _ in tf.range(num_steps):
            logs, seconds = self._one_step(batches, [done])
            done = self._num_updates()
            waited += seconds
        return logs, waited

    @tf.autograph.experimental.do_not_convert
    def _one_step(self, batches, before):
        """Returns a step's logs, and how long it waited for input.

        Args:
            batches: Iterator over batches.
            before: Tensors after which waiting begins.
        """
        with tf.control_dependencies(before):
            started = self._now()
        with tf.control_dependencies([started]):
            batch = next(batches)
        with tf.control_dependencies(_tensors(self.strategy, batch)):
            arrived = self._now()
        waited = arrived - started

        def train(batch):
            if self.is_timed:
                # Otherwise the step starts before the clock is read and keeps
                # the cores busy: its own time would count as waiting.
                with tf.control_dependencies([arrived]):
                    batch = tf.nest.map_structure(tf.identity, batch)
            return self.trainer.train_step(batch)

        per_replica = self.strategy.run(train, (batch,))
        # Logs are equal on all replicas.
        logs = {
            name: tf.reshape(
                self.strategy.experimental_local_results(per_replica[name])[0],
                [],
            )
            for name in self.trainer.METRICS
        }
        return logs, waited

    def _num_updates(self):
        """Returns the number of updates, available after the step's update."""
        return tf.identity(self.trainer.optimizer.iterations.value)

    def _now(self):
        return tf.timestamp() if self.is_timed else tf.zeros([], tf.float64)


def _tensors(strategy, batch):
    return [
        tensor
        for value in tf.nest.flatten(batch)
        for tensor in strategy.experimental_local_results(value)
    ]
