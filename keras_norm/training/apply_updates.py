"""What a step changes, on every replica at once."""

import tensorflow as tf

from keras_norm.training import optimizer_adapter


def apply_updates(model, strategy, gradients, state, other_state, verdict):
    """Updates weights, state, averages and counters, if the step is good.

    To be called in the cross-replica context: only there can an update depend
    on a condition.

    Args:
        model: The `ReplicaModel`.
        strategy: The strategy of its variables.
        gradients: Gradients of the global batch, clipped.
        state, other_state: New values of `LocalPass.moved_state` and
            `LocalPass.other_state`.
        verdict: The `Verdict` on the step.
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
            [*passes.moved_state, *passes.other_state],
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
