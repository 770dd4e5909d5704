"""RetinaNet: a flat Functional graph of backbone, feature pyramid and heads.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
https://arxiv.org/abs/1612.03144, and "Focal Loss for Dense Object Detection",
ICCV 2017, https://arxiv.org/abs/1708.02002. Unlike there, pyramid and heads are
normalized, with the same norm as the backbone, as in the FRN paper.
"""

import math
import re

import keras

from recipes.detection.backbones import LEVELS
from recipes.models import blocks

CLASSES = "classes"
BOXES = "boxes"
# Initial probability of every anchor and class.
PRIOR = 0.01
# Prefixes of layer names outside the backbone.
PYRAMID, CLASS_HEAD, BOX_HEAD = "pyramid", "class_head", "box_head"


def build_retinanet(backbone, norm, anchors, num_classes, filters, head_depth):
    """Builds a detector on a backbone.

    All levels share the convolutions of a head, but each level has its own
    norms.

    Args:
        backbone: Functional model from images to a list of the maps of the
            levels 3, 4 and 5.
        norm: A `keras_norm.Norm`.
        anchors: The `Anchors`.
        num_classes: Number of classes.
        filters: Number of channels in pyramid and heads.
        head_depth: Number of convolutions in a head before the last one.

    Returns:
        Functional model from images to a dict in the order of the anchors,
        float32 under every dtype policy:

        * `classes`: logits `(batch, anchors, num_classes)`.
        * `boxes`: deltas `(batch, anchors, 4)`.
    """
    maps = dict(zip(LEVELS, backbone.outputs, strict=True))
    maps = _pyramid(maps, anchors.levels, filters, norm)
    per_location = anchors.num_per_location
    prior = keras.initializers.Constant(-math.log((1 - PRIOR) / PRIOR))
    classes = _head(
        CLASS_HEAD, maps, norm, head_depth, per_location, num_classes, prior
    )
    boxes = _head(BOX_HEAD, maps, norm, head_depth, per_location, 4, "zeros")
    return keras.Model(
        backbone.inputs[0],
        {CLASSES: classes, BOXES: boxes},
        name=f"retinanet_{backbone.name}_{_describe_anchors(anchors)}",
    )


def has_anchors(model, anchors):
    """Returns False if a detector's name says that it has other anchors.

    Decoding its deltas with other anchors would return wrong boxes. Models
    without anchors in their names are accepted.
    """
    suffix = re.search(r"_anchors[\d.]+_levels\d+_\d+$", model.name)
    return suffix is None or suffix[0] == f"_{_describe_anchors(anchors)}"


def head_layers(model):
    """Returns the layers of a detector outside the backbone."""
    prefixes = (PYRAMID, CLASS_HEAD, BOX_HEAD)
    return [layer for layer in model.layers if layer.name.startswith(prefixes)]


def is_detector(model):
    """Returns True if a model has the outputs of `build_retinanet`."""
    outputs = model.output
    return isinstance(outputs, dict) and set(outputs) == {CLASSES, BOXES}


def _describe_anchors(anchors):
    levels = f"{anchors.min_level}_{anchors.max_level}"
    return f"anchors{float(anchors.size)}_levels{levels}"


def _pyramid(maps, levels, filters, norm):
    """Builds the pyramid and returns its maps by level."""
    merged, above = {}, None
    for level in sorted(maps, reverse=True):
        name = f"{PYRAMID}_lateral{level}"
        x = blocks.convolution(filters, size=1, name=name)(maps[level])
        x = blocks.normalization(x, norm, name)
        if above is not None:
            larger = keras.layers.UpSampling2D(
                2, name=f"{PYRAMID}_upsample{level}"
            )(above)
            x = keras.layers.Add(name=f"{PYRAMID}_add{level}")([x, larger])
        merged[level] = above = x
    maps_out = {}
    for level in range(min(maps), max(levels) + 1):
        name = f"{PYRAMID}_level{level}"
        if level in merged:
            x = blocks.convolution(filters, name=name)(merged[level])
        else:
            x = maps_out[level - 1]
            if level - 1 not in merged:
                x = norm.activation(name=f"{name}_in")(x)
            x = blocks.convolution(filters, strides=2, name=name)(x)
        maps_out[level] = blocks.normalization(x, norm, name)
    return {level: maps_out[level] for level in levels}


def _head(name, maps, norm, depth, per_location, num_values, bias):
    """Builds a head, `(batch, anchors, num_values)` over all levels."""
    filters = next(iter(maps.values())).shape[-1]
    shared = [
        blocks.convolution(filters, name=f"{name}{i}")
        for i in range(1, depth + 1)
    ]
    last = keras.layers.Conv2D(
        per_location * num_values,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=bias,
        name=f"{name}_out",
    )
    outputs = []
    for level, x in maps.items():
        for i, convolution in enumerate(shared, start=1):
            x = blocks.norm_and_activation(
                convolution(x), norm, f"{name}{i}_level{level}"
            )
        x = keras.layers.Reshape((-1, num_values), name=f"{name}_flat{level}")(
            last(x)
        )
        outputs.append(x)
    x = outputs[0]
    if len(outputs) > 1:
        x = keras.layers.Concatenate(axis=1, name=f"{name}_levels")(outputs)
    return keras.layers.Activation(
        "linear", dtype="float32", name=f"{name}_float32"
    )(x)
