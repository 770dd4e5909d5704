"""Which networks can be trained."""

import keras

from keras_norm.conversion import graph

# What a step replaces, and would leave out.
REPLACED = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


def check(model):
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
    """Refuses layers whose metrics a step would not update.

    Raises:
        ValueError: if a layer has a metric.
    """
    for layer in graph.family(model):
        if layer._metrics:
            raise ValueError(
                "`ReplicaModel` does not update metrics of layers. Pass them "
                f"to `compile` instead. Received: layer={layer.name} with "
                f"{', '.join(metric.name for metric in layer._metrics)}"
            )


def is_built(model):
    """Whether a model and all that is inside have their variables."""
    return all(layer.built for layer in graph.family(model))
