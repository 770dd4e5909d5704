"""Finds layers in a model, inside and outside its functional graph."""

import dataclasses

from keras_norm import _keras_internals
from keras_norm.conversion import layer_predicates
from keras_norm.graphs import graph


@dataclasses.dataclass(frozen=True)
class FoundLayer:
    """A layer, its path, and its first node in the graph.

    Attributes:
        path: Name of the layer, after the names of the models and layers that
            contain it.
        layer: The layer.
        node: Its first call, or None if it is outside the graph.
        reason: Why `node` is None, or None.
    """

    path: str
    layer: object
    node: object = None
    reason: str | None = None


def find_layers(model, is_wanted, prefix="", seen=None):
    """Finds every nested graph model and every layer that is wanted.

    Args:
        model: A graph model.
        is_wanted: Function from a layer to a boolean.
        prefix: Prefix of the paths.
        seen: Set of the ids of operations that were found before.

    Returns:
        `(graphs, found)`: pairs `(prefix, model)`, and a list of `FoundLayer`.
    """
    seen = set() if seen is None else seen
    graphs, found = [(prefix, model)], []
    for node in graph.nodes(model):
        operation = graph.operation(node)
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        path = prefix + operation.name
        if graph.is_graph_model(operation):
            inner_graphs, inner_found = find_layers(
                operation, is_wanted, f"{path}/", seen
            )
            graphs += inner_graphs
            found += inner_found
            continue
        kind = type(operation).__name__
        if layer_predicates.is_other_batch_norm(operation):
            reason = f"{kind} overrides `call` of its base class"
            found.append(FoundLayer(path, operation, reason=reason))
            continue
        if is_wanted(operation):
            found.append(FoundLayer(path, operation, node))
        reason = f"inside {path!r}, a {kind}"
        found += find_inner_layers(path, operation, is_wanted, reason)
    return graphs, found


def find_inner_layers(path, operation, is_wanted, reason):
    """Finds layers inside a layer, at any depth, outside the graph."""
    return [
        FoundLayer(f"{path}/{layer.name}".lstrip("/"), layer, reason=reason)
        for layer in _keras_internals.inner_layers(operation)
        if is_wanted(layer) or layer_predicates.is_other_batch_norm(layer)
    ]
