"""What stands between a gradient and the weights: is it finite."""

from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_norm.conversion import graph

NAN_POLICIES = (None, "stop", "skip")
# As Keras' LossScaleOptimizer.
INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
# How many variables an error names.
NUM_NAMED = 3


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not finite.

    Attributes:
        step: The step, counted from 1.
        names: Paths of the variables whose gradients are not finite.
    """

    def __init__(self, step, names, loss_is_finite):
        self.step, self.names = step, names
        what = ["the loss"] if not loss_is_finite else []
        if names:
            first = ", ".join(names[:NUM_NAMED])
            more = f" and {len(names) - NUM_NAMED} more"
            more = more if len(names) > NUM_NAMED else ""
            what.append(f"the gradient of {first}{more}")
        super().__init__(f"{' and '.join(what)} is not finite at step {step}")


class StepVerdict(NamedTuple):
    """What becomes of a step, the same on every replica.

    Attributes:
        flags: Booleans, whether the loss and each gradient is finite.
        applies: Whether the weights are updated; None for always.
        overflows: Whether the loss scale was too large.
        is_bad: Whether there is something that no loss scale explains.
    """

    flags: Any
    applies: Any
    overflows: Any
    is_bad: Any


class NonFiniteGuard:
    """Counts steps, scales the loss, and looks at what is not finite.

    Args:
        create: `f(name, dtype, initial value)` gives a variable.
        policy: One of `NAN_POLICIES`.
        scales_loss: Whether gradients are computed in float16.
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
        """Takes another number of gradients from now on.

        Args:
            num_gradients: The number.
            replace: `f(variable, initial value)` gives a variable in the place
                of another.
        """
        if self.bad_flags.shape[0] != num_gradients:
            self.bad_flags = replace(self.bad_flags, [True] * num_gradients)

    def scale(self):
        """What the loss is multiplied by, a scalar or None."""
        if self.loss_scale is None:
            return None
        return tf.convert_to_tensor(self.loss_scale.value)

    def check(self, loss, gradients):
        """The `Verdict` on a loss and the gradients of all replicas."""
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
        """Notes a step.

        Args:
            update: `f(variable, function, *tensors)` assigns
                `function(value, *tensors)`.
            verdict: The `Verdict`, or one on every replica.
        """
        update(self.step, lambda step: step + 1)
        if verdict.flags is None:
            return
        self._record_bad(update, verdict)
        if self.loss_scale is not None:
            self._record_scale(update, verdict)

    def _record_bad(self, update, verdict):
        # The first one is kept, until it was reported.
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

    def _record_scale(self, update, verdict):
        def moved(scale, overflows, good_steps):
            grown = tf.where(good_steps + 1 >= GROWTH_STEPS, 2.0, 1.0)
            shrunk = tf.maximum(scale / 2.0, 1.0)
            return tf.where(overflows, shrunk, scale * grown)

        update(self.loss_scale, moved, verdict.overflows, self.good_steps.value)
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
        """The `NonFiniteError` of the first bad step, or None.

        Args:
            paths: Names of the variables, in the order of the gradients.
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
    """Refuses an unknown policy.

    Raises:
        ValueError: if it is not one of `NAN_POLICIES`.
    """
    if policy not in NAN_POLICIES:
        raise ValueError(
            f"`nan_policy` must be one of {NAN_POLICIES}. Received: "
            f"nan_policy={policy!r}"
        )


def computes_in_float16(model):
    """Whether any layer of a model does, so that gradients may overflow."""
    return any(
        layer.compute_dtype == "float16" for layer in graph.all_layers(model)
    )


def with_stop_callback(callbacks):
    """Callbacks of `fit`, and one that asks the model whether to go on."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(_Halt())
        return callbacks
    return [*keras.tree.flatten(callbacks or []), _Halt()]


class _Halt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.raise_if_not_finite()
