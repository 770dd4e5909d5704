"""Where the layers of a kind are in a model, reached by its graph or not."""

import dataclasses

from keras_norm.conversion import graph
from keras_norm.conversion import layer_predicates


@dataclasses.dataclass(frozen=True)
class FoundLayer:
    """A layer: where it is, and its first node if a graph leads to it.

    Attributes:
        path: Its name, after those of the models and layers that it is in.
        layer: The layer.
        node: Its first call, or None.
        reason: Why there is none, or None.
    """

    path: str
    layer: object
    node: object = None
    reason: str | None = None


def find_layers(model, is_wanted, prefix="", seen=None):
    """Every graph model with its path, and every layer that is wanted.

    Args:
        model: A graph model.
        is_wanted: Function from a layer to a boolean.
        prefix: Of the paths.
        seen: Set of the ids of operations that were found already.

    Returns:
        `(graphs, found)`: pairs `(prefix, model)`, and a list of `Found`.
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
            reason = f"{kind} computes its own, not what its base class does"
            found.append(FoundLayer(path, operation, reason=reason))
            continue
        if is_wanted(operation):
            found.append(FoundLayer(path, operation, node))
        reason = f"inside {path!r}, a {kind}"
        found += find_inner_layers(path, operation, is_wanted, reason)
    return graphs, found


def find_inner_layers(path, operation, is_wanted, reason):
    """What a layer holds at any depth, where no graph leads."""
    return [
        FoundLayer(f"{path}/{part.name}".lstrip("/"), part, reason=reason)
        for part in graph.inner_layers(operation)
        if is_wanted(part) or layer_predicates.is_other_batch_norm(part)
    ]
