"""Forward and backward pass of one replica, without side effects."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_norm import _keras_internals
from keras_norm.distribution import all_reduce_sum_packed
from keras_norm.step_scope import step_scope
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks


@dataclasses.dataclass(frozen=True)
class ReplicaSums:
    """Contributions of a replica to sums over all replicas.

    Attributes:
        loss: The loss, weighted by the fraction of the global batch.
        values: Dict of other scalars, weighted in the same way.
        float_state: Changed state of layers, weighted in the same way.
        other_state: Counters and random seeds after the pass, not weighted.
        gradients: Gradients of `loss` times the loss scale.
        y_pred: Outputs of the model, or None if no metric needs them.
    """

    loss: Any
    values: dict
    float_state: list
    other_state: list
    gradients: list
    y_pred: Any

    def reduce_over_replicas(self, padding=None):
        """Returns loss, values and state of the global batch.

        The sums take one message.

        Args:
            padding: None, or `(total, variables)` if the whole batch may be
                padding: the number of present examples and the variables of
                `float_state`, which then keep their values.
        """
        names = list(self.values)
        loss, *small = all_reduce_sum_packed(
            [self.loss, *self.values.values(), *self.float_state]
        )
        values = dict(zip(names, small, strict=False))
        state = small[len(names) :]
        if padding is not None:
            total, variables = padding
            state = [
                tf.where(total > 0, new, old.value)
                for new, old in zip(state, variables, strict=True)
            ]
        return loss, values, state


class ForwardBackward:
    """Computes loss, gradients and new state on a per-replica batch.

    Nothing is assigned: weights and state are inputs and outputs, so that the
    pass can be compiled and repeated.

    Args:
        owner: The `ReplicaModel`, for its loss.
        model: The model to train.
        num_microbatches: Microbatches per step, computed one after the other.
        xla: If True, the pass is compiled with XLA.

    Raises:
        ValueError: if there is no microbatch, or if layers synchronize over
            replicas under XLA.
    """

    def __init__(self, owner, model, num_microbatches, xla):
        if num_microbatches < 1:
            raise ValueError(
                "`accumulation_steps` must be at least 1. Received: "
                f"accumulation_steps={num_microbatches}"
            )
        self.owner = owner
        self.model = model
        self.num_microbatches = num_microbatches
        self.trainable = model.trainable_variables
        trained = {id(variable) for variable in self.trainable}
        state = [v for v in model.variables if id(v) not in trained]
        self.float_state = [v for v in state if "float" in v.dtype]
        self.other_state = [v for v in state if "float" not in v.dtype]
        # Ids of the variables in `float_state` that tracing saw change.
        self._changed = set()
        synchronized = _synchronized_layers(model)
        if xla and synchronized:
            raise ValueError(
                "`xla` cannot compile layers that synchronize over replicas: "
                f"{', '.join(synchronized[:3])}. Leave out `xla` or "
                "`synchronized`, or use a layer without batch statistics. "
                f"Received: xla={xla}"
            )
        self._compute_microbatch = self._compute
        if xla:
            self._compute_microbatch = tf.function(
                self._compute, jit_compile=True, autograph=False
            )
        elif num_microbatches > 1 and not synchronized:
            # Without inlining, one trace serves all microbatches.
            self._compute_microbatch = tf.function(
                self._compute,
                autograph=False,
                experimental_attributes={"_noinline": True},
            )

    @property
    def changed_state(self):
        """Variables in `float_state` that a pass changes.

        Frozen weights are not among them: a mean over replicas would round
        them.
        """
        return [v for v in self.float_state if id(v) in self._changed]

    def run(self, microbatches, fractions, scale):
        """Returns the `ReplicaSums` over all microbatches of a replica.

        Args:
            microbatches: List of `Microbatch`.
            fractions: Their fractions, see `microbatch_fractions`.
            scale: Loss scale, or None.
        """
        trainable = [tf.convert_to_tensor(v.value) for v in self.trainable]
        state = [
            tf.convert_to_tensor(v.value)
            for v in [*self.float_state, *self.other_state]
        ]
        sums, all_outputs = None, []
        for batch, fraction in zip(microbatches, fractions, strict=True):
            # The dependencies keep microbatches sequential, to save memory.
            before = [] if sums is None else keras.tree.flatten(sums)
            with tf.control_dependencies(before):
                x = keras.tree.map_structure(
                    lambda t: None if t is None else tf.identity(t), batch.x
                )
                new, state, outputs = self._compute_microbatch(
                    trainable,
                    state,
                    x,
                    batch.y,
                    batch.weights,
                    batch.present,
                    fraction,
                    scale,
                )
            if outputs is not None:
                y_pred, masks = outputs
                set_masks(y_pred, masks)
                outputs = batch.remove_padding(y_pred)
            all_outputs.append(outputs)
            if sums is not None:
                new = keras.tree.map_structure(tf.add, sums, new)
            sums = new
        loss, values, gradients = sums
        count = len(self.float_state)
        state_fraction = sum(fraction["state"] for fraction in fractions)
        changed = [
            state_fraction * value
            for variable, value in zip(
                self.float_state, state[:count], strict=True
            )
            if id(variable) in self._changed
        ]
        return ReplicaSums(
            loss,
            values,
            changed,
            state[count:],
            gradients,
            _concat_outputs(all_outputs),
        )

    def _compute(
        self, trainable, state, x, y, weights, present, fractions, scale
    ):
        """Returns `((loss, values, gradients), state, outputs)`."""
        variables = [*self.trainable, *self.float_state, *self.other_state]
        values = [*trainable, *state]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            with (
                keras.StatelessScope(
                    list(zip(variables, values, strict=True)),
                    collect_losses=True,
                ) as scope,
                step_scope(present, averages_state=True),
            ):
                before = [scope.get_current_value(v) for v in self.float_state]
                y_pred = self.model(x, training=True)
                self._require_no_more_variables()
                objective, loss, logged = self.owner.weighted_loss(
                    x, y, y_pred, weights, list(scope.losses), fractions
                )
                state = [
                    scope.get_current_value(variable)
                    for variable in [*self.float_state, *self.other_state]
                ]
            self._changed.update(
                id(variable)
                for variable, old, new in zip(
                    self.float_state, before, state, strict=False
                )
                if new is not old
            )
            objective = tf.cast(objective, tf.float32)
            if scale is not None:
                objective *= scale
        gradients = tape.gradient(
            objective,
            trainable,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        loss = tf.cast(loss, tf.float32)
        logged = {k: tf.cast(v, tf.float32) for k, v in logged.items()}
        outputs = None
        if self.owner.wants_outputs:
            outputs = y_pred, get_masks(y_pred)
        return (loss, logged, gradients), state, outputs

    def _require_no_more_variables(self):
        known = {*map(id, self.trainable), *map(id, self.float_state)}
        known |= set(map(id, self.other_state))
        new = [v.path for v in self.model.variables if id(v) not in known]
        if new:
            raise ValueError(
                "Layers created variables in training that the model did not "
                "have when it was built, which would not be trained. Call the "
                "model with `training=True` before it is compiled. Received: "
                f"variables={new[:3]}"
            )


def _synchronized_layers(model):
    """Returns the names of layers that synchronize over replicas."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return []
    return [
        layer.name
        for layer in _keras_internals.all_layers(model)
        if getattr(layer, "synchronized", False)
    ]


def _concat_outputs(outputs):
    if outputs[0] is None or len(outputs) == 1:
        return outputs[0]
    joined = keras.tree.map_structure(_concat, *outputs)
    masks = zip(*[get_masks(output) for output in outputs], strict=True)
    set_masks(joined, [_concat(*mask) for mask in masks])
    return joined


def _concat(*tensors):
    return None if tensors[0] is None else tf.concat(tensors, axis=0)
