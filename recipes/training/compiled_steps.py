"""Steps that the devices run by themselves."""

import tensorflow as tf

from recipes import tf_internals
from recipes.data.input_pipeline import without_autotune


class Steps:
    """The compiled loops of a run.

    Args:
        trainer: The `Trainer`, compiled.
        data: The `Data` of the run.
        strategy: The `tf.distribute` strategy.
        is_timed: Whether steps measure how long they wait for input, which
            TensorFlow refuses where it is to be deterministic.
        loops: Whether a single step is run by the loop of many steps too, so
            that only one of them is compiled.
    """

    def __init__(self, trainer, data, strategy, is_timed=True, loops=False):
        self.trainer = trainer
        self.data = data
        self.strategy = strategy
        self.is_timed = is_timed
        self.loops = loops
        # A loop on the device takes a little longer than its steps.
        self._train_one = tf.function(self._one_step, autograph=False)
        self._train = tf.function(self._many_steps, autograph=True)
        self._evaluate = trainer.evaluation(self)

    def batches(self, first_step):
        """The training batches from a step on, each replica's share of them."""
        return self.distributed(
            lambda context: self.data.train(first_step, context)
        )

    def train(self, batches, num_steps):
        """Runs steps.

        Args:
            batches: What `batches` gave.
            num_steps: How many.

        Returns:
            `(values, waited)`: tensors on the device, the values of the last
            step and the seconds for which the steps waited for input.
        """
        if num_steps == 1 and not self.loops:
            return self._train_one(batches, [])
        return self._train(batches, tf.constant(num_steps, tf.int32))

    def evaluate(self):
        """The values of an evaluation, a dict."""
        return self._evaluate()

    def distributed(self, make_dataset):
        """Each replica's share of batches, one after the other.

        Args:
            make_dataset: `f(context)` gives them, as in `Data`.
        """
        with tf_internals.patch_device_datasets(without_autotune):
            return iter(
                self.strategy.distribute_datasets_from_function(make_dataset)
            )

    def _many_steps(self, batches, num_steps):
        values = {name: tf.zeros([]) for name in self.trainer.VALUES}
        waited = tf.zeros([], tf.float64)
        done = self._num_updates()
        for _ in tf.range(num_steps):
            values, seconds = self._one_step(batches, [done])
            done = self._num_updates()
            waited += seconds
        return values, waited

    @tf.autograph.experimental.do_not_convert
    def _one_step(self, batches, before):
        """Values of a step, and how long it waited from `before` on."""
        with tf.control_dependencies(before):
            started = self._now()
        with tf.control_dependencies([started]):
            batch = next(batches)
        with tf.control_dependencies(_tensors(self.strategy, batch)):
            arrived = self._now()
        waited = arrived - started

        def train(batch):
            if self.is_timed:
                # The step would otherwise start before the clock is read, and
                # keep the cores busy: its own time would count as waiting.
                with tf.control_dependencies([arrived]):
                    batch = tf.nest.map_structure(tf.identity, batch)
            return self.trainer.train_step(batch)

        logs = self.strategy.run(train, (batch,))
        # The same on every replica.
        values = {
            name: tf.reshape(
                self.strategy.experimental_local_results(logs[name])[0], []
            )
            for name in self.trainer.VALUES
        }
        return values, waited

    def _num_updates(self):
        """Number of the updates, known once the one of the step is made."""
        return tf.identity(self.trainer.optimizer.iterations.value)

    def _now(self):
        return tf.timestamp() if self.is_timed else tf.zeros([], tf.float64)


def _tensors(strategy, batch):
    return [
        tensor
        for value in tf.nest.flatten(batch)
        for tensor in strategy.experimental_local_results(value)
    ]
