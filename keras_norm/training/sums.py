"""What replicas add up."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_norm.distribution import all_reduce_sum_packed


@dataclasses.dataclass(frozen=True)
class Sums:
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

    def over_replicas(self, padding=None):
        """Loss, values and state of the global batch, in one message.

        Args:
            padding: None, or `(total, variables)` where the batch may be
                nothing but padding, of which nothing is learned: its size and
                the variables whose state it is.
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
