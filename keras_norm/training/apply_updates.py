"""Applies the updates of a training step on every replica."""

import tensorflow as tf

from keras_norm.training import optimizer_adapter


def apply_updates(model, strategy, gradients, state, other_state, verdict):
    """Updates weights, state, averages and counters after a finite step.

    Call it in the cross-replica context: only there can an update depend on a
    condition.

    Args:
        model: The `ReplicaModel`.
        strategy: The strategy of its variables.
        gradients: Gradients of the global batch, clipped.
        state, other_state: New values of `ForwardBackward.changed_state` and
            `ForwardBackward.other_state`.
        verdict: The `StepVerdict`.
    """

    def update(variable, function, *tensors):
        strategy.extended.update(
            variable.value,
            lambda v, *args: v.assign(function(v, *args)),
            args=tensors,
            group=False,
        )

    def apply():
        passes = model.passes
        if gradients:
            optimizer_adapter.apply_gradients(
                model.optimizer, strategy, gradients, passes.trainable
            )
        for variable, value in zip(
            [*passes.changed_state, *passes.other_state],
            [*state, *other_state],
            strict=True,
        ):
            update(variable, lambda old, new: new, value)
        model.averages.update(update, model.guard.step.value)
        return 0

    model.guard.update(update, verdict)
    if verdict.applies is None:
        apply()
        return
    applies = strategy.experimental_local_results(verdict.applies)[0]
    tf.cond(applies, apply, lambda: 0)
