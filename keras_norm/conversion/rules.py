"""What a layer is to the conversion: pure questions about single layers."""

import keras

RELU_FUNCTIONS = (keras.activations.relu, keras.ops.relu)


def is_batch_norm(layer):
    """Whether it is Keras' own batch normalization, not a subclass of it."""
    return type(layer) is keras.layers.BatchNormalization


def is_plain_relu(layer):
    """Whether it is `max(x, 0)`: a cap, a slope or a threshold is not."""
    if isinstance(layer, keras.layers.ReLU):
        return (
            layer.max_value is None
            and not layer.negative_slope
            and not layer.threshold
        )
    if isinstance(layer, keras.layers.Activation):
        return layer.activation in RELU_FUNCTIONS
    return type(layer).__name__ == "Relu"


def is_addition(operation):
    """Whether it adds branches, as at the end of a residual block."""
    return isinstance(operation, keras.layers.Add) or (
        type(operation).__name__ == "Add"
    )
