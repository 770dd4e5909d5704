"""Building blocks of networks.

Every block takes a `keras_norm.Norm` as an argument.
"""

import keras

# Filters of the small residual network; each stage halves the feature map.
SMALL_RESNET = (32, 64, 128, 128)


def small_resnet(inputs, norm):
    """Builds a residual network of nine convolutions.

    Returns:
        Feature maps `(batch, height / s, width / s, filters)` for the strides s
        4, 8, 16 and 32.
    """
    x = convolution(SMALL_RESNET[0] // 2, strides=2, name="stem")(inputs)
    x = norm_and_activation(x, norm, "stem")
    maps = []
    for stage, filters in enumerate(SMALL_RESNET, start=1):
        x = residual_block(x, filters, 2, norm, f"stage{stage}_block1")
        maps.append(x)
    return maps


def residual_block(x, filters, strides, norm, name):
    """Applies two convolutions; the last activation follows the addition."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolution(
            filters, size=1, strides=strides, name=f"{name}_shortcut"
        )(x)
        shortcut = normalization(shortcut, norm, f"{name}_shortcut")
    x = convolution(filters, strides=strides, name=f"{name}_1")(x)
    x = norm_and_activation(x, norm, f"{name}_1")
    x = convolution(filters, name=f"{name}_2")(x)
    x = normalization(x, norm, f"{name}_2")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return norm.activation(name=f"{name}_out")(x)


def convolution(filters, name, size=3, strides=1):
    return keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def normalization(x, norm, name):
    return norm.layer(name=f"{name}_norm")(x)


def norm_and_activation(x, norm, name):
    return norm.activation(name=f"{name}_act")(normalization(x, norm, name))
