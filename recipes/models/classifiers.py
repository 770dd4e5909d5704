"""Classification networks by name.

To add a network, add its `Family` to `FAMILIES`.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable

from etils import epy

from recipes.errors import unknown_name_error

# Checking the name of a network of this module does not load Keras.
with epy.lazy_imports():
    import keras

    from keras_norm import conversion
    from recipes.models import blocks
    from recipes.models import norms

# Depths that have been trained; every depth 6n + 2 is possible.
CIFAR_DEPTHS = (8, 20, 32, 56)
SMALL_RESNET = "resnet_small"
# Filters of the convolutions of VGG-A; each stage ends with a pooling layer.
VGG_A = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks whose names match a pattern.

    Attributes:
        pattern: Regular expression of the whole name.
        make_builder: `f(match)` returns `f(norm, image_shape, num_classes)`,
            which builds a network; None if the name is not valid.
        examples: Names for error messages.
    """

    pattern: str
    make_builder: Callable
    examples: tuple


def make_classifier(name, norm, image_shape, num_classes):
    """Builds a network from images to logits.

    The logits are float32 with every dtype policy.

    Args:
        name: Name of a `keras.applications` model, or of a network of
            `FAMILIES`.
        norm: A `keras_norm.Norm`.
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.

    Raises:
        RecipeError: If the name is unknown, or the network does not support
            the image size or the norm.
    """
    build = find_builder(name)
    with norms.report_build_errors(name, norm, f" for images of {image_shape}"):
        return build(norm, image_shape, num_classes)


def with_float32_logits(model):
    """Returns the model with float32 output."""
    logits = keras.layers.Activation(
        "linear", dtype="float32", name="logits_float32"
    )(model.outputs[0])
    return keras.Model(model.inputs[0], logits, name=model.name)


def model_names():
    """Returns the names of networks for error messages."""
    return [*_applications(), *(n for f in FAMILIES for n in f.examples)]


def find_builder(name):
    """Returns `f(norm, image_shape, num_classes)`, which builds a network.

    Args:
        name: Name of a `keras.applications` model, or of a network of
            `FAMILIES`.

    Raises:
        RecipeError: If the name is unknown.
    """
    for family in FAMILIES:
        match = re.fullmatch(family.pattern, name)
        build = match and family.make_builder(match)
        if build is not None:
            return build
    if name not in _applications():
        raise unknown_name_error("model", name, model_names())
    return _application(name)


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
        # The input is in [-1, 1] already.
        if "include_preprocessing" in inspect.signature(constructor).parameters:
            options["include_preprocessing"] = False
        model = constructor(**options)
        model, _ = conversion.convert(model, norm, fresh=True)
        return with_float32_logits(model)

    return build


def _resnet_cifar(match):
    """Returns the builder of a ResNet for small images (He et al. 2016)."""
    depth = int(match[1])
    if depth % 6 != 2:
        return None
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


def _resnet_small(match):
    """Returns the builder of a classifier with a small detector's backbone."""
    del match

    def build(norm, image_shape, num_classes):
        if min(image_shape[:2]) < 32:
            raise ValueError("images must have at least 32x32 pixels")
        inputs = keras.Input(image_shape)
        x = blocks.small_resnet(inputs, norm)[-1]
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(num_classes, name="logits")(x)
        return with_float32_logits(keras.Model(inputs, x, name=SMALL_RESNET))

    return build


def _vgg_a(match):
    """Returns the builder of VGG-A with normalized dense layers.

    All widths are divided by the number in the name.
    """
    divisor = int(match[2] or 1)

    def build(norm, image_shape, num_classes):
        if min(image_shape[:2]) < 32:
            raise ValueError("images must have at least 32x32 pixels")
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


FAMILIES = (
    Family(
        r"resnet(\d+)_cifar",
        _resnet_cifar,
        tuple(f"resnet{depth}_cifar" for depth in CIFAR_DEPTHS),
    ),
    Family(SMALL_RESNET, _resnet_small, (SMALL_RESNET,)),
    Family(r"vgg_a(_by([1-9]\d*))?", _vgg_a, ("vgg_a", "vgg_a_by8")),
)
