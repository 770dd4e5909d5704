"""Forward and backward pass of one replica, without a side effect."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_norm.batch_scope import batch_scope
from keras_norm.conversion import graph
from keras_norm.training.collectives import packed_sum
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks


class ForwardBackward:
    """Loss, gradients and new state of a model on a replica's share.

    Nothing is assigned: weights and state go in as tensors and come out, so
    that the pass can be compiled and repeated.

    Args:
        owner: The `ReplicaModel`, for its loss.
        model: The model that is trained.
        num_microbatches: Microbatches per step, computed one after the other.
        xla: Whether the pass is compiled.

    Raises:
        ValueError: for a number of parts below 1, and for layers that
            synchronize where the pass is to be compiled.
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
        # Those of the former that a pass changes, as tracing it tells.
        self._moved = set()
        synchronized = _synchronized_layers(model)
        if xla and synchronized:
            raise ValueError(
                "A pass that is compiled cannot wait for other replicas, as "
                f"synchronized layers do ({', '.join(synchronized[:3])}). "
                "Leave out `xla`, or `synchronized`, or take a layer that does "
                f"not look at the batch. Received: xla={xla}"
            )
        self._compute_part = self._compute
        if xla:
            self._compute_part = tf.function(
                self._compute, jit_compile=True, autograph=False
            )
        elif num_microbatches > 1 and not synchronized:
            # A function that is not inlined is traced once for all parts.
            self._compute_part = tf.function(
                self._compute,
                autograph=False,
                experimental_attributes={"_noinline": True},
            )

    @property
    def moved_state(self):
        """The variables of `float_state` that a pass changes.

        Frozen weights are none of them: a mean over replicas would round them.
        """
        return [v for v in self.float_state if id(v) in self._moved]

    def run(self, parts, shares, scale):
        """The `Sums` over all parts of a replica's share.

        Args:
            parts: List of `Part`.
            shares: What each counts for, of the global batch.
            scale: What the loss is multiplied by for its gradients, or None.
        """
        trainable = [tf.convert_to_tensor(v.value) for v in self.trainable]
        state = [
            tf.convert_to_tensor(v.value)
            for v in [*self.float_state, *self.other_state]
        ]
        sums, outputs = None, []
        for part, share in zip(parts, shares, strict=True):
            # One part at a time, for the memory that it takes.
            before = [] if sums is None else keras.tree.flatten(sums)
            with tf.control_dependencies(before):
                x = keras.tree.map_structure(
                    lambda t: None if t is None else tf.identity(t), part.x
                )
                new, state, outputs_of_part = self._compute_part(
                    trainable,
                    state,
                    x,
                    part.y,
                    part.weights,
                    part.present,
                    share,
                    scale,
                )
            if outputs_of_part is not None:
                y_pred, masks = outputs_of_part
                set_masks(y_pred, masks)
                outputs_of_part = part.remove_padding(y_pred)
            outputs.append(outputs_of_part)
            if sums is not None:
                new = keras.tree.map_structure(tf.add, sums, new)
            sums = new
        loss, values, gradients = sums
        count = len(self.float_state)
        fraction = sum(share["state"] for share in shares)
        moved = [
            fraction * value
            for variable, value in zip(
                self.float_state, state[:count], strict=True
            )
            if id(variable) in self._moved
        ]
        return ReplicaSums(
            loss,
            values,
            moved,
            state[count:],
            gradients,
            _joined(outputs),
        )

    def _compute(self, trainable, state, x, y, weights, present, share, scale):
        """`(loss, values, gradients)` of a part, its new state and outputs."""
        variables = [*self.trainable, *self.float_state, *self.other_state]
        values = [*trainable, *state]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            with (
                keras.StatelessScope(
                    list(zip(variables, values, strict=True)),
                    collect_losses=True,
                ) as scope,
                batch_scope(present, averages_state=True),
            ):
                before = [scope.get_current_value(v) for v in self.float_state]
                y_pred = self.model(x, training=True)
                self._require_no_more_variables()
                objective, loss, logged = self.owner.weighted_loss(
                    x, y, y_pred, weights, list(scope.losses), share
                )
                state = [
                    scope.get_current_value(variable)
                    for variable in [*self.float_state, *self.other_state]
                ]
            self._moved.update(
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
    """Names of the layers that wait for other replicas."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return []
    return [
        layer.name
        for layer in graph.all_layers(model)
        if getattr(layer, "synchronized", False)
    ]


def _joined(outputs):
    if outputs[0] is None or len(outputs) == 1:
        return outputs[0]
    joined = keras.tree.map_structure(_concat, *outputs)
    masks = zip(*[get_masks(output) for output in outputs], strict=True)
    set_masks(joined, [_concat(*mask) for mask in masks])
    return joined


def _concat(*tensors):
    return None if tensors[0] is None else tf.concat(tensors, axis=0)


@dataclasses.dataclass(frozen=True)
class ReplicaSums:
    """What a replica adds to the sums over all replicas.

    Attributes:
        loss: The loss, times what the share counts for.
        values: Dict of other scalars, the same.
        float_state: State of layers after the pass, the same.
        other_state: Counters and random seeds after the pass, as they are.
        gradients: Gradients of `loss` times the loss scale.
        y_pred: Outputs of the model, or None where no metric wants them.
    """

    loss: Any
    values: dict
    float_state: list
    other_state: list
    gradients: list
    y_pred: Any

    def reduce_over_replicas(self, padding=None):
        """Loss, values and state of the global batch, in one message.

        Args:
            padding: None, or `(total, variables)` where the batch may be
                nothing but padding, of which nothing is learned: its size and
                the variables whose state it is.
        """
        names = list(self.values)
        loss, *small = packed_sum(
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
