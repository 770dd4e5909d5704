"""Checks that gradients are finite, and scales the loss under float16."""

from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_norm import _keras_internals

NAN_POLICIES = (None, "stop", "skip")
# The values of Keras' LossScaleOptimizer.
INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
# Maximum number of variables that an error names.
NUM_NAMED = 3


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not finite.

    Attributes:
        step: The step, counted from 1.
        names: Paths of the variables whose gradients are not finite.
    """

    def __init__(self, step, names, loss_is_finite):
        self.step, self.names = step, names
        problems = ["the loss"] if not loss_is_finite else []
        if names:
            first = ", ".join(names[:NUM_NAMED])
            more = f" and {len(names) - NUM_NAMED} more"
            more = more if len(names) > NUM_NAMED else ""
            problems.append(f"the gradient of {first}{more}")
        super().__init__(
            f"{' and '.join(problems)} is not finite at step {step}"
        )


class StepVerdict(NamedTuple):
    """Result of the check of a step, equal on every replica.

    Attributes:
        flags: Boolean tensor: the loss and each gradient are finite.
        applies: True if the weights are updated; None for always.
        overflows: True if the loss scale was too large.
        is_bad: True for a non-finite value that the loss scale does not
            explain.
    """

    flags: Any
    applies: Any
    overflows: Any
    is_bad: Any


class NonFiniteGuard:
    """Counts steps, scales the loss, and detects non-finite values.

    Args:
        create: Function `f(name, dtype, initial value)` that creates a
            variable.
        policy: One of `NAN_POLICIES`.
        scales_loss: True if gradients are computed in float16.
        num_gradients: Number of gradients.
    """

    def __init__(self, create, policy, scales_loss, num_gradients):
        self.policy = policy
        self.step = create("step", "int64", 0)
        self.skipped = create("skipped", "int64", 0)
        self.bad_step = create("bad_step", "int64", 0)
        self.bad_flags = create("bad_flags", "bool", [True] * num_gradients)
        self.loss_scale = self.good_steps = None
        if scales_loss:
            self.loss_scale = create("loss_scale", "float32", INITIAL_SCALE)
            self.good_steps = create("good_steps", "int64", 0)

    def resize(self, num_gradients, replace):
        """Changes the number of gradients.

        Args:
            num_gradients: The new number.
            replace: Function `f(variable, initial value)` that replaces a
                variable and returns the new one.
        """
        if self.bad_flags.shape[0] != num_gradients:
            self.bad_flags = replace(self.bad_flags, [True] * num_gradients)

    def scale(self):
        """Returns the loss scale, a scalar, or None."""
        if self.loss_scale is None:
            return None
        return tf.convert_to_tensor(self.loss_scale.value)

    def check(self, loss, gradients):
        """Returns the `StepVerdict` for a loss and summed gradients."""
        if self.policy is None and self.loss_scale is None:
            return StepVerdict(None, None, None, None)
        # A sum is not finite if any of its terms is not.
        sums = [loss, *[tf.reduce_sum(g) for g in gradients]]
        flags = tf.stack([tf.math.is_finite(s) for s in sums])
        finite = tf.reduce_all(flags)
        overflows = tf.constant(False)
        if self.loss_scale is not None:
            overflows = ~finite & flags[0] & (self.scale() > 1.0)
        is_bad = ~finite & ~overflows
        applies = finite
        if self.policy == "stop":
            applies &= tf.equal(self.bad_step.value, 0)
        elif self.policy is None:
            applies = ~overflows
        return StepVerdict(flags, applies, overflows, is_bad)

    def update(self, update, verdict):
        """Updates counters and the loss scale after a step.

        Args:
            update: Function `f(variable, function, *tensors)` that assigns
                `function(value, *tensors)`.
            verdict: The `StepVerdict`, with a value for each replica.
        """
        update(self.step, lambda step: step + 1)
        if verdict.flags is None:
            return
        self._update_bad_step(update, verdict)
        if self.loss_scale is not None:
            self._update_scale(update, verdict)

    def _update_bad_step(self, update, verdict):
        # Only the first bad step is recorded.
        update(
            self.bad_flags,
            lambda old, new, bad, first: tf.where(bad & (first == 0), new, old),
            verdict.flags,
            verdict.is_bad,
            self.bad_step.value,
        )
        update(
            self.bad_step,
            lambda old, bad, step: tf.where(bad & (old == 0), step, old),
            verdict.is_bad,
            self.step.value,
        )
        update(
            self.skipped,
            lambda old, bad: old + tf.cast(bad, tf.int64),
            verdict.is_bad,
        )

    def _update_scale(self, update, verdict):
        def new_scale(scale, overflows, good_steps):
            grown = tf.where(good_steps + 1 >= GROWTH_STEPS, 2.0, 1.0)
            shrunk = tf.maximum(scale / 2.0, 1.0)
            return tf.where(overflows, shrunk, scale * grown)

        update(
            self.loss_scale, new_scale, verdict.overflows, self.good_steps.value
        )
        update(
            self.good_steps,
            lambda old, overflows: tf.where(
                overflows | (old + 1 >= GROWTH_STEPS),
                tf.zeros_like(old),
                old + 1,
            ),
            verdict.overflows,
        )

    def error(self, paths):
        """Returns the `NonFiniteError` of the first bad step, or None.

        Args:
            paths: Paths of the variables, in the order of the gradients.
        """
        step = int(self.bad_step.numpy())
        if step == 0:
            return None
        flags = self.bad_flags.numpy()
        names = [
            path
            for path, finite in zip(paths, flags[1:], strict=True)
            if not finite
        ]
        return NonFiniteError(step, names, bool(flags[0]))


def check_nan_policy(policy):
    """Raises an error for an unknown policy.

    Raises:
        ValueError: if it is not one of `NAN_POLICIES`.
    """
    if policy not in NAN_POLICIES:
        raise ValueError(
            f"`nan_policy` must be one of {NAN_POLICIES}. Received: "
            f"nan_policy={policy!r}"
        )


def computes_in_float16(model):
    """Returns True if any layer of a model computes in float16."""
    return any(
        layer.compute_dtype == "float16"
        for layer in _keras_internals.all_layers(model)
    )


def with_stop_callback(callbacks):
    """Adds a callback to `fit` that raises the `NonFiniteError`."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(_RaiseIfNotFinite())
        return callbacks
    return [*keras.tree.flatten(callbacks or []), _RaiseIfNotFinite()]


class _RaiseIfNotFinite(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.raise_if_not_finite()
