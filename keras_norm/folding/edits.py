"""Turns a plan of folded weights into changes of a model."""

import dataclasses

import keras
import numpy as np

from keras_norm import variables
from keras_norm.conversion.rebuild import Edits
from keras_norm.conversion.rebuild import rebuild_from_config
from keras_norm.folding import linear_layers
from keras_norm.folding.time_distributed import InnerCall
from keras_norm.graphs import graph
from keras_norm.layers.constant_padding import ConstantPadding


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Values of the weights of a new layer, by name."""

    values: dict


def make_edits(planner):
    """Returns `(edits, notes)`: the `Edits` of a plan, and remarks on them."""
    edits, dropped, identities = Edits(), [], {}
    names = {call.operation.name for call in planner.links.calls}
    for call in planner.removed:
        if call.is_output or _casts(call):
            # The output keeps its name and its dtype.
            norm = call.operation
            if id(norm) not in identities:
                identities[id(norm)] = keras.layers.Identity(
                    name=norm.name, dtype=norm.dtype_policy
                )
            edits.calls[id(call.node)] = identities[id(norm)]
        else:
            edits.removed.add(id(call.node))
    for key, linear in planner.linear.items():
        edits.layers[key] = _new_layer(linear, dropped)
        edits.transfers[key] = _Weights(linear.values)
        if linear.padding is not None:
            calls = planner.links.calls_of(linear.wrapper or linear.layer)
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
        if not value.any():
            continue
        layer = call.operation
        is_shared = len(planner.links.calls_of(layer)) > 1
        edits.calls[id(call.node)] = _make_padding(
            _unique(layer.name, names) if is_shared else layer.name,
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

    if linear.wrapper is None:
        return rebuild_from_config(linear.layer, edit)

    def edit_inside(config):
        inner = config["layer"]
        inner = {**inner, "config": edit(inner["config"])}
        return {**config, "layer": inner}

    return rebuild_from_config(linear.wrapper, edit_inside)


def _pad_before(edits, linear, calls, names):
    """Adds the layers that pad the inputs of a convolution."""
    made = {}
    for call in calls:
        inner = InnerCall(call) if linear.wrapper else call
        shape = inner.input_shapes[0]
        widths = tuple(linear_layers.pad_widths(linear.layer, shape))
        if not any(map(any, widths)):
            continue
        if widths not in made:
            name = _unique(f"{call.operation.name}_padding", names)
            padding = _make_padding(
                name, linear.layer, widths, shape, linear.padding
            )
            if linear.wrapper:
                padding = keras.layers.TimeDistributed(padding, name=name)
            made[widths] = padding
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


def _casts(call):
    """Returns True if a call changes the dtype of its input."""
    dtypes = {
        keras.backend.standardize_dtype(tensor.dtype)
        for tensor in (
            graph.input_tensors(call.node)[0],
            *graph.output_tensors(call.node),
        )
    }
    return len(dtypes) > 1


def _unique(name, names):
    """Returns a name that is not among the names, and adds it to them."""
    candidates = [name, *(f"{name}_{i}" for i in range(1, len(names) + 2))]
    chosen = next(c for c in candidates if c not in names)
    names.add(chosen)
    return chosen
