"""Exponential moving averages of weights and moving statistics."""

import contextlib

import keras
import tensorflow as tf

from keras_norm import variables as variables_lib


class MovingAverages:
    """Exponential moving averages of a model's float variables over steps.

    With `d = min(decay, (1 + step) / (10 + step))`:

        average = d * average + (1 - d) * variable

    Args:
        decay: Number in [0, 1), or None for no averages.

    Raises:
        ValueError: for any other decay.
    """

    def __init__(self, decay):
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(
                "`ema_decay` must be at least 0 and below 1. Received: "
                f"ema_decay={decay}"
            )
        self.decay = decay
        self.variables = []
        self.averages = []

    def track(self, create, variables):
        """Creates averages of variables that are not averaged yet.

        Args:
            create: Function `f(name, dtype, initial value)` that creates a
                variable.
            variables: The variables to average.
        """
        if self.decay is None:
            return
        known = {id(variable) for variable in self.variables}
        for variable in variables:
            if id(variable) not in known:
                value = variables_lib.read_copy(variable)
                name = f"average_{len(self.averages)}"
                self.averages.append(create(name, variable.dtype, value))
                self.variables.append(variable)

    def reset(self):
        """Sets every average to the current value of its variable."""
        variables_lib.copy_values(self.variables, self.averages)

    def update(self, update, step):
        """Updates every average.

        Args:
            update: Function `f(variable, function, *tensors)` that assigns
                `function(value, *tensors)`.
            step: Number of steps, including this one.
        """

        def new_average(average, variable, step):
            step = tf.cast(step, average.dtype)
            decay = tf.minimum(
                tf.cast(self.decay, average.dtype), (1 + step) / (10 + step)
            )
            return average + (1 - decay) * (variable - average)

        for average, variable in zip(
            self.averages, self.variables, strict=True
        ):
            update(average, new_average, variable.value, step)

    def scope(self):
        """Returns a scope in which variables have the values of averages."""
        if not self.variables:
            return contextlib.nullcontext()
        return keras.StatelessScope(
            [
                (variable, tf.convert_to_tensor(average.value))
                for variable, average in zip(
                    self.variables, self.averages, strict=True
                )
            ],
            collect_losses=True,
        )

    @contextlib.contextmanager
    def swapped_in(self):
        """Assigns the averages to the variables inside the scope."""
        before = [variables_lib.read_copy(v) for v in self.variables]
        variables_lib.copy_values(self.averages, self.variables)
        try:
            yield
        finally:
            variables_lib.copy_values(before, self.variables)
