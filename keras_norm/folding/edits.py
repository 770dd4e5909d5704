"""Turns a plan of folded weights into changes of a model."""

import dataclasses

import keras
import numpy as np

from keras_norm import variables
from keras_norm.conversion.rebuild import Edits
from keras_norm.conversion.rebuild import rebuild_from_config
from keras_norm.folding import linear_layers
from keras_norm.layers.constant_padding import ConstantPadding


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Values of the weights of a new layer, by name."""

    values: dict


def make_edits(planner):
    """Returns `(edits, notes)`: the `Edits` of a plan, and remarks on them."""
    edits, dropped = Edits(), []
    names = {call.operation.name for call in planner.links.calls}
    for call in planner.removed:
        if call.is_output:
            # The output keeps its name.
            edits.calls[id(call.node)] = keras.layers.Identity(
                name=call.operation.name, dtype=call.operation.dtype_policy
            )
        else:
            edits.removed.add(id(call.node))
    for key, linear in planner.linear.items():
        edits.layers[key] = _new_layer(linear, dropped)
        edits.transfers[key] = _Weights(linear.values)
        if linear.padding is not None:
            calls = planner.links.calls_of(linear.layer)
            _pad_before(edits, linear, calls, names)
    for key, (layer, values) in planner.norms.items():
        if all(
            call in planner.removed for call in planner.links.calls_of(layer)
        ):
            continue
        edits.layers[key] = rebuild_from_config(
            layer, lambda config: {**config, "center": True, "scale": True}
        )
        kept = {v.name: variables.read_copy(v) for v in layer.variables}
        edits.transfers[key] = _Weights({**kept, **values})
    for call, value in planner.paddings.items():
        if value.any():
            layer = call.operation
            edits.calls[id(call.node)] = _make_padding(
                _unique(layer.name, names - {layer.name}, names),
                layer,
                layer.padding,
                call.input_shapes[0],
                value,
            )
    notes = []
    if dropped:
        notes.append(
            "Left out, because they were meant for the weights before: "
            f"{', '.join(dropped)}."
        )
    return edits, notes


def _new_layer(linear, dropped):
    """Creates the layer for folded weights, not built yet."""

    def edit(config):
        for key, value in config.items():
            if value is not None and key.endswith(
                ("_regularizer", "_constraint")
            ):
                config[key] = None
                dropped.append(f"{key} of {linear.layer.name!r}")
        if "use_bias" in config:
            config["use_bias"] = "bias" in linear.values
        if "bias_axes" in config:
            config["bias_axes"] = linear.bias_axes
        if linear.padding is not None:
            config["padding"] = "valid"
        return config

    return rebuild_from_config(linear.layer, edit)


def _pad_before(edits, linear, calls, names):
    """Adds the layers that pad the inputs of a convolution."""
    made = {}
    for call in calls:
        shape = call.input_shapes[0]
        widths = tuple(linear_layers.pad_widths(linear.layer, shape))
        if not any(map(any, widths)):
            continue
        if widths not in made:
            name = _unique(f"{linear.layer.name}_padding", names, names)
            made[widths] = _make_padding(
                name, linear.layer, widths, shape, linear.padding
            )
        edits.before[id(call.node)] = made[widths]


def _make_padding(name, layer, widths, shape, value):
    if np.ndim(widths) == 1:
        widths = (tuple(widths),)
    padding = ConstantPadding(
        widths,
        data_format=getattr(layer, "data_format", "channels_last"),
        name=name,
        dtype=layer.dtype_policy,
    )
    padding.build((None, *shape))
    variables.assign_copy(padding.value, value)
    return padding


def _unique(name, taken, names):
    """Returns a name that is not taken, and adds it to the names."""
    candidates = [name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))]
    chosen = next(c for c in candidates if c not in taken)
    names.add(chosen)
    return chosen
