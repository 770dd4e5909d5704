"""Lists the normalization layers of any model, for `keras-norm inspect`."""

import keras

from keras_norm.conversion import activations
from keras_norm.conversion import entries
from keras_norm.conversion import find_layers
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import plan
from keras_norm.conversion.report import ConversionReport
from keras_norm.graphs import graph
from keras_norm.layers.tlu import TLU
from keras_norm.norm_layers import is_norm_layer


def inspect_model(model):
    """Returns a report that lists every normalization layer of a model.

    Args:
        model: Keras model of any kind, with or without normalization, graph
            and weights.

    Returns:
        A `ConversionReport`. An entry's action is `"kept"` for batch
        normalization that `convert` can replace and `"unreachable"` for batch
        normalization outside the graph. Other normalization layers are kept,
        with a reason.
    """
    if graph.is_graph_model(model):
        graphs, found = find_layers.find_layers(model, _is_listed)
    else:
        reason = f"{type(model).__name__} has no graph, or is not built"
        graphs = []
        found = find_layers.find_inner_layers("", model, _is_listed, reason)
    following = _following_activations(graphs)
    return ConversionReport(
        model=model.name,
        norm="",
        entries=[_entry(item, following) for item in found],
        num_relus_kept=sum(
            layer_predicates.relu_cap(graph.operation(node)) is not None
            for _, graph_model in graphs
            for node in graph.nodes(graph_model)
        ),
        notes=plan.model_notes(model, graphs),
    )


def _is_listed(operation):
    """Returns True for normalization layers of features and of kernels."""
    return is_norm_layer(operation) or isinstance(
        operation, keras.layers.SpectralNormalization
    )


def _entry(item, following):
    action, reason = entries.KEPT, item.reason
    is_batch_norm = layer_predicates.is_batch_norm(
        item.layer
    ) or layer_predicates.is_other_batch_norm(item.layer)
    if not is_batch_norm:
        reason = entries.NOT_BATCH_NORM
    elif item.node is None:
        action = entries.UNREACHABLE
    return entries.Entry(
        path=item.path,
        layer=type(item.layer).__name__,
        shape=None if item.node is None else plan.input_shape(item.node),
        action=action,
        reason=reason,
        activations=tuple(following.get(id(item.layer), ())),
    )


def _following_activations(graphs):
    """Returns a dict from layer ids to the activations that follow them."""
    following = {}
    for prefix, model in graphs:
        for node in graph.nodes(model):
            operation = graph.operation(node)
            is_tlu = isinstance(operation, TLU)
            was = (
                "tlu" if is_tlu else layer_predicates.activation_name(operation)
            )
            if was is None:
                continue
            norms, _ = activations.find_source_norms(
                graph.input_tensors(node)[0], _is_listed
            )
            entry = entries.Activation(prefix + operation.name, was, None)
            for layer in norms:
                following.setdefault(id(layer), []).append(entry)
    return following
