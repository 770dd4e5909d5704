"""Variables of a training step, beside those of network and optimizer."""

import tensorflow as tf


class StepVariables:
    """Makes `step_variables` of a `ReplicaModel`, in whose scope it is."""

    def _create(self, name, dtype, value):
        """A variable of the step, equal on every replica."""
        variable = self._variable(name, dtype, value)
        self.step_variables.append(variable)
        return variable

    def _replace(self, old, value):
        """A variable of the step in the place of another."""
        new = self._variable(old.name, old.dtype, value)
        places = [variable is old for variable in self.step_variables]
        self.step_variables[places.index(True)] = new
        self._untrack_variable(old)
        return new

    def _variable(self, name, dtype, value):
        value = tf.constant(value, dtype)
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )
