"""Checks whether `ReplicaModel` can train a model."""

import keras

from keras_norm import _keras_internals
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.training import tf_internals

# Methods of a model that `ReplicaModel` does not call.
REPLACED = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


def check_model(model):
    """Raises an error for a model with a custom training step.

    Raises:
        ValueError: if it overrides one of `REPLACED`.
    """
    own = [
        name
        for name in REPLACED
        if getattr(type(model), name, None)
        is not getattr(keras.Model, name, None)
    ]
    if isinstance(model, keras.Model) and own:
        raise ValueError(
            "`ReplicaModel` does not call the training step of the model. "
            f"Override `ReplicaModel.{own[0]}` or `part_loss` instead. "
            f"Received: model={type(model).__name__} with {', '.join(own)}"
        )


def check_layers(model):
    """Raises an error for layers that cannot be trained.

    Raises:
        ValueError: if a layer has a metric, or is a layer of Keras with weights
            in a `keras.RematScope`: TensorFlow recomputes it without a gradient
            for its weights, which are tensors here.
    """
    for layer in _keras_internals.all_layers(model):
        is_package_layer = isinstance(layer, ChannelLayer)
        if (
            layer.trainable_variables
            and tf_internals.is_rematerialized(layer)
            and not is_package_layer
        ):
            raise ValueError(
                "`ReplicaModel` cannot train the weights of a layer of Keras "
                "that was created in a `keras.RematScope`. Create it outside "
                "the scope, or list only layers of this package: "
                'mode="list_of_layers". Received: '
                f"layer={layer.name!r}, a {type(layer).__name__}"
            )
        metrics = tf_internals.get_layer_metrics(layer)
        if metrics:
            raise ValueError(
                "`ReplicaModel` does not update metrics of layers. Pass them "
                f"to `compile` instead. Received: layer={layer.name} with "
                f"{', '.join(metric.name for metric in metrics)}"
            )


def is_built(model):
    """Returns True if a model and all its inner layers have variables."""
    return all(layer.built for layer in _keras_internals.all_layers(model))
