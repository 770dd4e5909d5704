"""Networks by name; each takes its normalization as an argument."""

import inspect
import re

import keras

from keras_norm.conversion import convert
from recipes.errors import unknown
from recipes.models import blocks
from recipes.models import norms

# The depths that have been trained; any other 6n + 2 can be.
CIFAR_DEPTHS = (8, 20, 32, 56)
SMALL_RESNET = "resnet_small"
# Filters of the convolutions of VGG-A; each stage ends by halving the map.
VGG_A = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def make_classifier(name, norm, image_shape, num_classes):
    """A network from images to logits, float32 under every dtype policy.

    Args:
        name: A `keras.applications` model, `resnet<depth>_cifar`,
            `resnet_small`, `vgg_a` or `vgg_a_by<n>`, whose widths are those of
            VGG-A divided by n.
        norm: A `keras_norm.Norm`.
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.

    Raises:
        RecipeError: for an unknown name, or an image size or a norm that the
            network cannot take.
    """
    cifar = re.fullmatch(r"resnet(\d+)_cifar", name)
    if cifar and int(cifar[1]) % 6 == 2:
        build = _resnet_cifar(int(cifar[1]))
    elif name == SMALL_RESNET:
        build = _resnet_small()
    elif vgg := re.fullmatch(r"vgg_a(_by([1-9]\d*))?", name):
        build = _vgg_a(int(vgg[2] or 1))
    elif name in _applications():
        build = _application(name)
    else:
        raise unknown("model", name, model_names())
    with norms.report_build_errors(name, norm, f" for images of {image_shape}"):
        return build(norm, image_shape, num_classes)


def with_float32_logits(model):
    """The model, its output in float32 under every dtype policy."""
    logits = keras.layers.Activation(
        "linear", dtype="float32", name="logits_float32"
    )(model.outputs[0])
    return keras.Model(model.inputs[0], logits, name=model.name)


def model_names():
    """The names that `make` knows."""
    cifar = [f"resnet{depth}_cifar" for depth in CIFAR_DEPTHS]
    return [*_applications(), *cifar, SMALL_RESNET, "vgg_a", "vgg_a_by8"]


def _applications():
    return {
        name: build
        for name, build in vars(keras.applications).items()
        if inspect.isfunction(build) and name[0].isupper()
    }


def _application(name):
    constructor = _applications()[name]

    def build(norm, image_shape, num_classes):
        options = {
            "weights": None,
            "input_shape": image_shape,
            "classes": num_classes,
            "classifier_activation": None,
        }
        # The input arrives in [-1, 1] already.
        if "include_preprocessing" in inspect.signature(constructor).parameters:
            options["include_preprocessing"] = False
        model = constructor(**options)
        model, _ = convert(model, norm, fresh=True)
        return with_float32_logits(model)

    return build


def _resnet_cifar(depth):
    """ResNet for small images (He et al. 2016), `6n + 2` layers deep."""
    num_blocks = (depth - 2) // 6

    def build(norm, image_shape, num_classes):
        inputs = keras.Input(image_shape)
        x = blocks.convolution(16, name="stem")(inputs)
        x = blocks.norm_and_activation(x, norm, "stem")
        for stage, filters in enumerate((16, 32, 64)):
            for block in range(num_blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = blocks.residual_block(x, filters, strides, norm, name)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(num_classes, name="logits")(x)
        model = keras.Model(inputs, x, name=f"resnet{depth}_cifar")
        return with_float32_logits(model)

    return build


def _resnet_small():
    """The backbone of small detectors, as a classifier."""

    def build(norm, image_shape, num_classes):
        if min(image_shape[:2]) < 32:
            raise ValueError("it halves the map five times: 32 pixels at least")
        inputs = keras.Input(image_shape)
        x = blocks.small_resnet(inputs, norm)[-1]
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(num_classes, name="logits")(x)
        return with_float32_logits(keras.Model(inputs, x, name=SMALL_RESNET))

    return build


def _vgg_a(divisor):
    """VGG-A, with its dense layers normalized too, narrower by a divisor."""

    def build(norm, image_shape, num_classes):
        if min(image_shape[:2]) < 32:
            raise ValueError("it halves the map five times: 32 pixels at least")
        inputs = x = keras.Input(image_shape)
        for stage, widths in enumerate(VGG_A, start=1):
            for index, filters in enumerate(widths, start=1):
                name = f"conv{stage}_{index}"
                x = blocks.convolution(max(filters // divisor, 1), name=name)(x)
                x = blocks.norm_and_activation(x, norm, name)
            x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
        x = keras.layers.Flatten(name="flatten")(x)
        for index in (1, 2):
            name = f"dense{index}"
            x = keras.layers.Dense(
                max(4096 // divisor, 1),
                use_bias=False,
                kernel_initializer="he_normal",
                name=name,
            )(x)
            x = blocks.norm_and_activation(x, norm, name)
        x = keras.layers.Dense(num_classes, name="logits")(x)
        return with_float32_logits(keras.Model(inputs, x, name="vgg_a"))

    return build
