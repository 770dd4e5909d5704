"""Which networks can be trained."""

import keras

from keras_norm.conversion import graph
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.training.tf_internals import is_rematerialized

# What a step replaces, and would leave out.
REPLACED = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


def check_model(model):
    """Refuses a model with a step of its own.

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
            "`ReplicaModel` has a training step of its own, and the model's "
            f"would not be called. Override `ReplicaModel.{own[0]}` or "
            "`part_loss` instead. Received: "
            f"model={type(model).__name__} with {', '.join(own)}"
        )


def check_layers(model):
    """Refuses layers that a step would not update in full.

    Raises:
        ValueError: if a layer has a metric, or is a layer of Keras with weights
            in a `keras.RematScope`: TensorFlow recomputes it without a gradient
            for its weights, which are tensors here.
    """
    for layer in graph.all_layers(model):
        is_ours = isinstance(layer, ChannelLayer)
        if (
            layer.trainable_variables
            and is_rematerialized(layer)
            and not is_ours
        ):
            raise ValueError(
                "`ReplicaModel` cannot train the weights of a layer of Keras "
                "that was made in a `keras.RematScope`. Make it outside of the "
                "scope, or list the layers of this package alone: "
                'mode="list_of_layers". Received: '
                f"layer={layer.name!r}, a {type(layer).__name__}"
            )
        if layer._metrics:
            raise ValueError(
                "`ReplicaModel` does not update metrics of layers. Pass them "
                f"to `compile` instead. Received: layer={layer.name} with "
                f"{', '.join(metric.name for metric in layer._metrics)}"
            )


def is_built(model):
    """Whether a model and all that is inside have their variables."""
    return all(layer.built for layer in graph.all_layers(model))
