"""Selects the weights that weight decay applies to."""

import keras_norm

# Optimizers that shrink the weight itself, apart from the gradient. Under the
# others decay is a gradient, `decay * w`.
DECOUPLED = ("adamw", "lamb")


def get_excluded_weights(model, norm_weight_decay):
    """Returns the trainable weights that are excluded from weight decay.

    Args:
        model: A Keras model.
        norm_weight_decay: Whether the weights of normalization layers and
            thresholds decay too.
    """
    if norm_weight_decay:
        return []
    # By identity: Keras matches names anywhere in the name of a weight.
    trainable = {id(weight) for weight in model.trainable_variables}
    weights = keras_norm.norm_weights(model)
    return [weight for weight in weights if id(weight) in trainable]
