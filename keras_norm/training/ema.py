"""Exponential moving averages of weights and moving statistics."""

import contextlib

import keras
import tensorflow as tf

from keras_norm import values


class MovingAverages:
    """One average a float variable of a model, over the steps.

    With `d = min(decay, (1 + step) / (10 + step))`:

        average = d * average + (1 - d) * variable

    Args:
        decay: In [0, 1), or None for no averages.

    Raises:
        ValueError: for another decay.
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
        """Averages of the variables that have none yet.

        Args:
            create: `f(name, dtype, initial value)` gives a variable.
            variables: The variables to average.
        """
        if self.decay is None:
            return
        known = {id(variable) for variable in self.variables}
        for variable in variables:
            if id(variable) not in known:
                value = values.read(variable)
                name = f"average_{len(self.averages)}"
                self.averages.append(create(name, variable.dtype, value))
                self.variables.append(variable)

    def reset(self):
        """Every average becomes what its variable is."""
        values.copy(self.variables, self.averages)

    def update(self, update, step):
        """Moves every average on.

        Args:
            update: `f(variable, function, *tensors)` assigns
                `function(value, *tensors)`.
            step: The number of steps done, this one included.
        """

        def moved(average, variable, step):
            step = tf.cast(step, average.dtype)
            decay = tf.minimum(
                tf.cast(self.decay, average.dtype), (1 + step) / (10 + step)
            )
            return average + (1 - decay) * (variable - average)

        for average, variable in zip(
            self.averages, self.variables, strict=True
        ):
            update(average, moved, variable.value, step)

    def scope(self):
        """A scope in which the variables read as their averages."""
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
        """Inside, the variables hold their averages."""
        before = [values.read(v) for v in self.variables]
        values.copy(self.averages, self.variables)
        try:
            yield
        finally:
            values.copy(before, self.variables)
