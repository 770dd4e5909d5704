"""Plans a conversion: decides everything before the model is rebuilt."""

import dataclasses
import inspect
import os
import warnings

import keras

from keras_norm.conversion import activations
from keras_norm.conversion import entries
from keras_norm.conversion import invalid_weights
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import new_layer
from keras_norm.conversion import weights
from keras_norm.conversion.find_layers import find_layers
from keras_norm.conversion.rebuild import Edits
from keras_norm.conversion.report import ConversionReport
from keras_norm.conversion.select_layers import select_layers
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph


@dataclasses.dataclass(kw_only=True)
class Plan(Edits):
    """Decisions of a conversion, and the new layers.

    Attributes:
        report: The `ConversionReport`.
        found: List of the batch normalizations, one for each entry of the
            report.
        invalid: List of the model's `InvalidWeight`.
    """

    report: ConversionReport
    found: list
    invalid: list


def make_plan(model, norm, include, exclude, policy, initialize):
    """Plans the conversion of a graph model.

    Args:
        model: Keras model.
        norm: The result of `new_layer.standardize_norm`.
        include, exclude, policy, initialize: The arguments `include`,
            `exclude`, `activation` and `fresh` of `keras_norm.convert`.

    Raises:
        ConversionError: for a model without a graph or without batch
            normalization, or an invalid argument.
    """
    activations.check_policy(policy, new_layer.norm_name(norm))
    require_graph(
        model, "Build it inside `with keras_norm.norm_scope(...)` instead."
    )
    graphs, found = find_layers(model, layer_predicates.is_batch_norm)
    if not found:
        raise ConversionError(
            f"{model.name!r} has no batch normalization: nothing to convert."
        )
    selected = select_layers(
        [(f.path, f.layer) for f in found], include, exclude
    )
    layers, transfers, listed = {}, {}, []
    for item in found:
        entry = _refused_entry(item, selected)
        if entry is None:
            entry = _replace(item, norm, initialize, layers, transfers)
        listed.append(entry)
    _warn_of_single_channels(found, layers)
    calls = activations.find_activation_calls(graphs, layers, norm, policy)
    hints = activations.activation_hints(calls, layers, norm, policy)
    thresholds = activations.make_thresholds(graphs, calls, norm)
    listed = [
        dataclasses.replace(
            entry, activations=activations.activation_entries(item.layer, calls)
        )
        if item.node is not None
        else entry
        for item, entry in zip(found, listed, strict=True)
    ]
    invalid = invalid_weights.find_invalid_weights(model)
    report = ConversionReport(
        model=model.name,
        norm=new_layer.norm_name(norm),
        entries=listed,
        num_thresholds=len({id(layer) for layer in thresholds.values()}),
        num_relus_kept=sum(
            call.cap is None
            and layer_predicates.relu_cap(call.operation) is not None
            for call in calls
        ),
        notes=[*model_notes(model, graphs, invalid), *hints],
    )
    return Plan(
        layers=layers,
        transfers=transfers,
        calls=thresholds,
        report=report,
        found=[item.layer for item in found],
        invalid=invalid,
    )


def check_model(model):
    """Raises a `ConversionError` if not a model, such as the path of a file."""
    if isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        raise ConversionError(
            "`model` must be a Keras model, not the path of a file: load it "
            f"with keras.saving.load_model({path!r}, compile=False), or run "
            f"`keras-norm convert {path} OUT.keras --to NORM`. "
            f"Received: model={model!r}"
        )
    if not isinstance(model, keras.layers.Layer | keras.Function):
        raise ConversionError(
            "`model` must be a Keras model. Received: model of type "
            f"{type(model).__module__}.{type(model).__qualname__}"
        )


def require_graph(
    model, advice="Build it as a Functional or Sequential model instead."
):
    """Raises a `ConversionError` if a model has no functional graph.

    Args:
        model: Keras model.
        advice: How to do without a graph.
    """
    if graph.is_graph_model(model):
        return
    name = getattr(model, "name", model)
    if type(model).__name__ == "Sequential":
        raise ConversionError(
            f"The Sequential model {name!r} is not built, so its shapes are "
            "unknown: call it on data, or start it with keras.Input."
        )
    raise ConversionError(
        f"{name!r} has no functional graph: it is a {type(model).__name__}, "
        f"which is computed by Python code. {advice}"
    )


def _entry(item, action, **options):
    return entries.Entry(
        path=item.path,
        layer=type(item.layer).__name__,
        shape=None if item.node is None else input_shape(item.node),
        action=action,
        **options,
    )


def _refused_entry(item, selected):
    """Returns the entry of a layer that is not replaced; else None."""
    if id(item.layer) not in selected:
        reason = "left out by include or exclude"
        return _entry(item, entries.KEPT, reason=reason)
    if item.node is None:
        return _entry(item, entries.UNREACHABLE, reason=item.reason)
    return None


def _replace(item, norm, initialize, layers, transfers):
    """Creates and builds the new layer; returns the entry."""
    layer = new_layer.make_layer(item.layer, norm, initialize)
    if layer is None:
        reason = "kept by the function that creates the new layer"
        return _entry(item, entries.KEPT, reason=reason)
    try:
        layer.build(input_shape(item.node))
    except (TypeError, ValueError) as error:
        raise ConversionError(
            f"{type(layer).__name__} cannot replace {item.path!r}: "
            f"{one_line(error)}"
        ) from error
    plan_weights = (
        weights.plan_initialization if initialize else weights.plan_transfer
    )
    transfer = plan_weights(item.layer, layer)
    layers[id(item.layer)] = layer
    transfers[id(item.layer)] = transfer
    return _entry(
        item,
        entries.REPLACED,
        becomes=type(layer).__name__,
        copied=transfer.copied,
        created=transfer.created,
        dropped=transfer.dropped,
        function=transfer.function,
        note="; ".join(_layer_notes(item.node, layer)) or None,
    )


def input_shape(node):
    """Returns the shape of a call's first input."""
    return tuple(graph.input_tensors(node)[0].shape)


def _layer_notes(node, layer):
    _, kwargs = graph.arguments(node)
    takes_mask = "mask" in inspect.signature(layer.call).parameters
    if kwargs.get("mask") is not None and not takes_mask:
        yield f"{type(layer).__name__} ignores the mask: every position counts"
    if _has_one_channel_per_group(layer, input_shape(node)):
        yield (
            f"groups={layer.groups} leaves one channel per group, which is "
            "instance normalization"
        )


def _has_one_channel_per_group(layer, shape):
    groups = getattr(layer, "groups", None)
    return bool(groups) and 1 < groups == shape[layer.axis]


def _warn_of_single_channels(found, layers):
    """Warns once about all layers whose groups have a single channel."""
    narrow = [
        item.path
        for item in found
        if id(item.layer) in layers
        and _has_one_channel_per_group(
            layers[id(item.layer)], input_shape(item.node)
        )
    ]
    if not narrow:
        return
    shown = ", ".join(narrow[:3]) + (", ..." if len(narrow) > 3 else "")
    num_layers = entries.plural(len(narrow), "layer")
    warnings.warn(
        f"{num_layers} with one channel per group, which is instance "
        f"normalization: {shown}. Pass fewer groups, or none to let each layer "
        "choose.",
        stacklevel=4,
    )


def model_notes(model, graphs, invalid=None):
    """Returns remarks on the model as a whole, for its report.

    Args:
        model: Keras model.
        graphs: List of `(prefix of paths, graph model)`.
        invalid: List of the model's `InvalidWeight`; None to look for them.
    """
    notes = [
        f"{prefix}{nested.name} is a {type(nested).__name__}; it is rebuilt as "
        "a plain Functional model, without the methods of its class."
        for prefix, nested in graphs
        if not graph.keeps_class(nested)
    ]
    if invalid is None:
        invalid = invalid_weights.find_invalid_weights(model)
    if invalid:
        description = invalid_weights.describe_invalid_weights(invalid)
        notes.append(f"{model.name} has invalid weights: {description}")
    if getattr(model, "compiled", False):
        notes.append(
            f"{model.name} is compiled; compile the converted model for its "
            "training."
        )
    return notes
