"""Optimizers by name, with the decoupled weight decay of AdamW and LAMB."""

import keras

from recipes.training.trainer import DECOUPLED_DECAY
from recipes.training.trainer import weights_without_decay


def make_optimizer(config, rate, model):
    """Returns the optimizer of a run, not yet built.

    AdamW and LAMB use decoupled weight decay: a step with learning rate `rate`
    first computes `w - rate * weight_decay * w`, then applies the update. This
    is AdamW as published. Keras' LAMB departs from the paper, which adds
    `weight_decay * w` to the update before it computes the trust ratio
    `|w| / |update|`; in Keras the ratio does not include the decay. Keras
    applies a trust ratio to every weight, including the weights of norms. The
    ratio is 1 if the weight or the update is zero.

    For SGD and RMSprop, the trainer adds the gradient of the decay.

    Args:
        config: A `RunConfig`.
        rate: The learning rate, a number or a schedule.
        model: The Keras model to train.
    """
    optimizer = _OPTIMIZERS[config.optimizer](config, rate)
    if config.optimizer in DECOUPLED_DECAY:
        # By identity: Keras matches names anywhere in a weight's name.
        optimizer.exclude_from_weight_decay(
            var_list=weights_without_decay(model, config.norm_weight_decay)
        )
    return optimizer


def _sgd(config, rate):
    return keras.optimizers.SGD(rate, momentum=config.momentum)


def _rmsprop(config, rate):
    return keras.optimizers.RMSprop(rate, momentum=config.momentum)


def _adamw(config, rate):
    return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)


def _lamb(config, rate):
    return keras.optimizers.Lamb(rate, weight_decay=config.weight_decay)


_OPTIMIZERS = {
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adamw": _adamw,
    "lamb": _lamb,
}
