"""What a conversion will do: decided in full before anything is rebuilt."""

import dataclasses
import inspect
import os
import warnings

import keras

from keras_norm.conversion import activations
from keras_norm.conversion import find_layers
from keras_norm.conversion import graph
from keras_norm.conversion import invalid_weights
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import new_layer
from keras_norm.conversion import report
from keras_norm.conversion import select_layers
from keras_norm.conversion import weights
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line


@dataclasses.dataclass
class Plan:
    """The decisions, and the new layers that they ask for.

    Attributes:
        report: The `ConversionReport`.
        layers: New layer by the id of the batch normalization it replaces.
        transfers: `Transfer` by the same id.
        thresholds: New activation by the id of the node it takes the place of.
    """

    report: report.ConversionReport
    layers: dict
    transfers: dict
    thresholds: dict


def make_plan(model, norm, include, exclude, policy, fresh):
    """Plans the conversion of a graph model. Arguments: `keras_norm.convert`.

    Raises:
        ConversionError: for a model that is no graph, or without batch
            normalization, or an argument that cannot be.
    """
    activations.check_policy(policy, new_layer.norm_name(norm))
    _require_graph(model)
    graphs, found = find_layers.find_layers(
        model, layer_predicates.is_batch_norm
    )
    if not found:
        raise ConversionError(
            f"{model.name!r} has no batch normalization: nothing to convert."
        )
    picked = select_layers.select_layers(
        [(f.path, f.layer) for f in found], include, exclude
    )
    layers, transfers, entries = {}, {}, []
    for item in found:
        entry = _refused(item, picked)
        if entry is None:
            entry = _replace(item, norm, fresh, layers, transfers)
        entries.append(entry)
    _warn_of_single_channels(found, layers)
    calls = activations.find_activation_calls(graphs, layers, norm, policy)
    hints = activations.activation_hints(calls, layers, norm, policy)
    made = activations.make_thresholds(graphs, calls, norm)
    entries = [
        dataclasses.replace(
            entry, activations=activations.activation_entries(item.layer, calls)
        )
        if item.node is not None
        else entry
        for item, entry in zip(found, entries, strict=True)
    ]
    result = report.ConversionReport(
        model=model.name,
        norm=new_layer.norm_name(norm),
        entries=entries,
        num_thresholds=len({id(layer) for layer in made.values()}),
        num_relus_kept=sum(
            call.cap is None
            and layer_predicates.relu_cap(call.operation) is not None
            for call in calls
        ),
        notes=[*model_notes(model, graphs), *hints],
    )
    return Plan(result, layers, transfers, made)


def check_model(model):
    """Raises a `ConversionError` for what is no model, such as its file."""
    if isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        raise ConversionError(
            f"{path!r} has no graph to walk: `model` must be a Keras model, "
            f"which keras.saving.load_model({path!r}, compile=False) returns; "
            "the program that takes files is "
            f"`keras-norm convert {path} OUT.keras --to NORM`. "
            f"Received: model={model!r}"
        )
    if not isinstance(model, keras.layers.Layer | keras.Function):
        raise ConversionError(
            "`model` must be a Keras model. Received: model of the type "
            f"{type(model).__module__}.{type(model).__qualname__}"
        )


def _require_graph(model):
    if graph.is_graph_model(model):
        return
    name = getattr(model, "name", model)
    if type(model).__name__ == "Sequential":
        raise ConversionError(
            f"The Sequential model {name!r} is not built, so that its shapes "
            "are unknown: call it on data, or begin it with keras.Input."
        )
    raise ConversionError(
        f"{name!r} has no graph to walk: it is a {type(model).__name__}, whose "
        "computation is Python code. Build it inside "
        "`with keras_norm.norm_scope(...)` instead."
    )


def _entry(item, action, **facts):
    return report.Entry(
        path=item.path,
        layer=type(item.layer).__name__,
        shape=None if item.node is None else input_shape(item.node),
        action=action,
        **facts,
    )


def _refused(item, picked):
    """The entry of what is not to be replaced, or cannot be; else None."""
    if id(item.layer) not in picked:
        reason = "left out by include or exclude"
        return _entry(item, report.KEPT, reason=reason)
    if item.node is None:
        return _entry(item, report.UNREACHABLE, reason=item.reason)
    return None


def _replace(item, norm, fresh, layers, transfers):
    """Makes and builds the new layer; returns the entry."""
    layer = new_layer.make_layer(item.layer, norm, fresh)
    if layer is None:
        reason = "kept by the function that makes the new layer"
        return _entry(item, report.KEPT, reason=reason)
    try:
        layer.build(input_shape(item.node))
    except (TypeError, ValueError) as error:
        raise ConversionError(
            f"{type(layer).__name__} cannot take the place of {item.path!r}: "
            f"{one_line(error)}"
        ) from error
    plan_weights = (
        weights.plan_initialization if fresh else weights.plan_transfer
    )
    transfer = plan_weights(item.layer, layer)
    layers[id(item.layer)] = layer
    transfers[id(item.layer)] = transfer
    return _entry(
        item,
        report.REPLACED,
        becomes=type(layer).__name__,
        copied=transfer.copied,
        created=transfer.created,
        dropped=transfer.dropped,
        function=transfer.function,
        note="; ".join(_layer_notes(item.node, layer)) or None,
    )


def input_shape(node):
    """The shape of a call's first input."""
    return tuple(graph.input_tensors(node)[0].shape)


def _layer_notes(node, layer):
    _, kwargs = graph.arguments(node)
    takes_mask = "mask" in inspect.signature(layer.call).parameters
    if kwargs.get("mask") is not None and not takes_mask:
        yield f"{type(layer).__name__} takes no mask: every position counts"
    if _has_one_channel_a_group(layer, input_shape(node)):
        yield (
            f"groups={layer.groups} leaves one channel a group, which is "
            "instance normalization"
        )


def _has_one_channel_a_group(layer, shape):
    groups = getattr(layer, "groups", None)
    return bool(groups) and 1 < groups == shape[layer.axis]


def _warn_of_single_channels(found, layers):
    """Warns once of all layers whose groups have one channel each."""
    narrow = [
        item.path
        for item in found
        if id(item.layer) in layers
        and _has_one_channel_a_group(
            layers[id(item.layer)], input_shape(item.node)
        )
    ]
    if not narrow:
        return
    shown = ", ".join(narrow[:3]) + (", ..." if len(narrow) > 3 else "")
    num_layers = report.plural(len(narrow), "layer")
    warnings.warn(
        f"One channel a group, in {num_layers}, is instance normalization: "
        f"{shown}. Pass fewer groups, or none to let each layer choose.",
        stacklevel=4,
    )


def model_notes(model, graphs):
    """Sentences on the model as a whole, for its report."""
    found = [
        f"{prefix}{part.name} is a {type(part).__name__}; it comes back as a "
        "plain Functional model, without the methods of its class."
        for prefix, part in graphs
        if not graph.keeps_class(part)
    ]
    faults = invalid_weights.find_invalid_weights(model)
    if faults:
        description = invalid_weights.describe_invalid_weights(faults)
        found.append(f"{model.name} is broken: {description}")
    if getattr(model, "compiled", False):
        found.append(
            f"{model.name} is compiled; compile the result for its training."
        )
    return found
