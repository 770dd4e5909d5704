"""The normalization layers of any model, for `keras-norm inspect`."""

from keras_norm.conversion import activations
from keras_norm.conversion import find_layers
from keras_norm.conversion import graph
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import plan
from keras_norm.conversion import report
from keras_norm.layers.tlu import TLU

OTHER = "not batch normalization"


def inspect_model(model):
    """A report in which every normalization layer is kept.

    Args:
        model: Keras model of any kind, also one without normalization, without
            a graph or without weights.

    Returns:
        A `ConversionReport`. The action of an entry is `"kept"` for batch
        normalization that `convert` reaches, `"unreachable"` for batch
        normalization that it does not reach; all others are kept with a reason.
    """
    if graph.is_graph_model(model):
        graphs, found = find_layers.find_layers(model, layer_predicates.is_norm)
    else:
        reason = f"{type(model).__name__} has no graph, or is not built"
        graphs = []
        found = find_layers.find_inner_layers(
            "", model, layer_predicates.is_norm, reason
        )
    behind = _activations(graphs)
    return report.ConversionReport(
        model=model.name,
        norm="",
        entries=[_entry(item, behind) for item in found],
        num_relus_kept=sum(
            layer_predicates.relu_cap(graph.operation(node)) is not None
            for _, part in graphs
            for node in graph.nodes(part)
        ),
        notes=plan.model_notes(model, graphs),
    )


def is_batch_norm(entry):
    """Whether an entry is batch normalization, which `convert` is for."""
    return entry.reason != OTHER


def _entry(item, behind):
    action, reason = report.KEPT, item.reason
    is_other = not (
        layer_predicates.is_batch_norm(item.layer)
        or layer_predicates.is_other_batch_norm(item.layer)
    )
    if is_other:
        reason = OTHER
    elif item.node is None:
        action = report.UNREACHABLE
    return report.Entry(
        path=item.path,
        layer=type(item.layer).__name__,
        shape=None if item.node is None else plan.input_shape(item.node),
        action=action,
        reason=reason,
        activations=tuple(behind.get(id(item.layer), ())),
    )


def _activations(graphs):
    """The activations behind each norm, by the id of its layer."""
    behind = {}
    for prefix, model in graphs:
        for node in graph.nodes(model):
            operation = graph.operation(node)
            is_tlu = isinstance(operation, TLU)
            was = (
                "tlu" if is_tlu else layer_predicates.activation_name(operation)
            )
            if was is None:
                continue
            before, _ = activations.find_source_norms(
                graph.input_tensors(node)[0], layer_predicates.is_norm
            )
            entry = report.Activation(prefix + operation.name, was, None)
            for layer in before:
                behind.setdefault(id(layer), []).append(entry)
    return behind
