"""Update rules by name, with the weight decay that is theirs."""

import keras

from recipes.training import weight_decay


def make(config, rate, model):
    """The optimizer of a run, not built yet.

    AdamW and LAMB decay by themselves: at a step with learning rate `rate` the
    weight first becomes `w - rate * weight_decay * w`, then the update follows.
    That is AdamW as published. For LAMB it is a departure of Keras: the paper
    adds `weight_decay * w` to the update before it takes the trust ratio
    `|w| / |update|`, here the ratio knows nothing of the decay. Keras gives
    every weight a trust ratio, those of norms included; it is 1 where the
    weight or the update is zero.

    SGD and RMSprop have no decay of their own: the trainer adds its gradient.

    Args:
        config: A `Config`.
        rate: The learning rate, a number or a schedule.
        model: The Keras model to train.
    """
    optimizer = _OPTIMIZERS[config.optimizer](config, rate)
    if config.optimizer in weight_decay.DECOUPLED:
        optimizer.exclude_from_weight_decay(
            var_list=weight_decay.get_excluded_weights(
                model, config.norm_weight_decay
            )
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
