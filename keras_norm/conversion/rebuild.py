"""The walk: a model's graph once more, with other layers in some places."""

import keras

from keras_norm.conversion import rules


def replace_batch_norm(model, norm):
    """A new, untrained model with `norm` wherever `model` has batch norm.

    A ReLU that follows a replaced layer, or the addition at the end of a
    residual block, becomes the norm's own activation (TLU for FRN). Other
    activations, capped ReLUs among them, stay.

    Args:
        model: Functional or Sequential Keras model without nested models that
            hold batch normalization. It is left as it is.
        norm: A `keras_norm.Norm`.

    Returns:
        `(model, num_replaced)`: the new model with fresh weights, and how many
        batch normalizations it replaced.

    Raises:
        ValueError: for batch normalization inside a nested model or a wrapper,
            which this walk does not reach.
    """
    _refuse_nested(model)
    shared = {
        layer.name for layer in model.layers if len(layer._inbound_nodes) > 1
    }
    replaced = {}
    activations = {}
    axis = -1

    def call(layer, *args, **kwargs):
        nonlocal axis
        if rules.is_batch_norm(layer):
            axis = layer.axis
            if id(layer) not in replaced:
                replaced[id(layer)] = norm.layer(axis=axis, **_identity(layer))
            training = {k: v for k, v in kwargs.items() if k == "training"}
            return replaced[id(layer)](*args, **training)
        if rules.is_plain_relu(layer) and _follows(args[0], replaced.values()):
            if id(layer) not in activations:
                identity = _identity(layer)
                if layer.name in shared:
                    # The layer itself may stay, for its other inputs.
                    identity["name"] = f"{layer.name}_norm"
                activations[id(layer)] = norm.activation(axis=axis, **identity)
            return activations[id(layer)](*args)
        return layer(*args, **kwargs)

    rebuilt = keras.models.clone_model(model, call_function=call)
    return rebuilt, len(replaced)


def _identity(layer):
    identity = {"name": layer.name}
    if isinstance(layer, keras.layers.Layer):
        identity["dtype"] = layer.dtype_policy
    return identity


def _follows(tensor, replaced):
    """Whether a tensor comes out of a replaced layer or an addition."""
    producer = tensor._keras_history.operation
    return rules.is_addition(producer) or any(
        producer is layer for layer in replaced
    )


def _refuse_nested(model):
    for layer in model.layers:
        inner = layer._flatten_layers(include_self=False)
        if any(rules.is_batch_norm(part) for part in inner):
            raise ValueError(
                "Batch normalization inside a nested layer cannot be replaced "
                f"yet. Received: model={model.name!r} with layer={layer.name!r}"
            )
