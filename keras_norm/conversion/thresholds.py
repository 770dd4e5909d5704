"""Thresholds in the place of ReLUs: which calls, and one layer for which."""

import collections
import dataclasses
import math

from keras_norm.conversion import activations
from keras_norm.conversion import graph
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import report


@dataclasses.dataclass(frozen=True)
class ActivationCall:
    """A call of an activation behind batch normalization, or of any ReLU."""

    path: str
    operation: object
    node: object
    was: str
    layers: tuple
    direct: bool
    cap: float | None

    @property
    def key(self):
        """Calls with the same key share one threshold."""
        shares = self.direct and len(self.layers) == 1
        before = self.layers[0] if shares else self.node
        return id(self.operation), id(before)


def find_activation_calls(graphs, layers, norm, policy):
    """Every call of an activation, and what is to become of it.

    Args:
        graphs: List of `(prefix of paths, model)`.
        layers: Dict whose keys are the ids of the layers to be replaced.
        norm: A `keras_norm.Norm`, or a function.
        policy: As in `activations.check_policy`.
    """
    has_own = getattr(norm, "has_own_activation", False)
    calls = []
    for prefix, model in graphs:
        for node in graph.nodes(model):
            operation = graph.operation(node)
            was = layer_predicates.activation_name(operation)
            if was is None:
                continue
            before, direct = activations.find_source_norms(graph.input_tensors(node)[0])
            cap = None
            if any(id(layer) in layers for layer in before):
                cap = activations.threshold_cap(operation, policy, has_own)
            calls.append(
                ActivationCall(
                    path=prefix + operation.name,
                    operation=operation,
                    node=node,
                    was=was,
                    layers=tuple(before),
                    direct=direct,
                    cap=cap,
                )
            )
    return calls


def make_thresholds(graphs, calls, norm):
    """New activation by the id of the node it takes the place of."""
    uses = collections.defaultdict(set)
    for call in calls:
        uses[id(call.operation)].add(None if call.cap is None else call.key)
    names = {
        graph.operation(node).name
        for _, model in graphs
        for node in graph.nodes(model)
    }
    made, thresholds = {}, {}
    for call in calls:
        if call.cap is None:
            continue
        if call.key not in made:
            name = call.operation.name
            if len(uses[id(call.operation)]) > 1:
                # The ReLU stays for other tensors, or several take its place.
                name = _unique(f"{name}_{call.layers[0].name}", names)
            made[call.key] = activations.make_threshold(
                norm, call.operation, call.layers[0], name, call.cap
            )
        thresholds[id(call.node)] = made[call.key]
    return thresholds


def activation_entries(layer, calls):
    """What `report.Entry.activations` says of a batch normalization."""
    return tuple(
        report.Activation(call.path, call.was, _becomes(call.cap))
        for call in calls
        if any(layer is before for before in call.layers)
    )


def activation_hints(calls, layers, norm, policy):
    """What another `activation` would do for FRN, at most one sentence.

    Args:
        calls: What `find_calls` returned; the others as there.
    """
    capped = [
        call
        for call in calls
        if call.cap is None
        and layer_predicates.relu_cap(call.operation) is not None
        and any(id(layer) in layers for layer in call.layers)
    ]
    if policy != "auto" or not getattr(norm, "has_own_activation", False):
        return []
    if not capped:
        return []
    caps = sorted(
        {layer_predicates.relu_cap(call.operation) for call in capped}
    )
    becomes = " and ".join(_becomes(cap) for cap in caps)
    hint = (
        f"Capped ReLUs that stay behind new norms: {len(capped)}. "
        f"activation='tlu' (--activation tlu) makes each {becomes}."
    )
    return [hint]


def _becomes(cap):
    if cap is None:
        return None
    return "TLU" if cap == math.inf else f"min(TLU, {cap:g})"


def _unique(name, names):
    candidates = [name, *(f"{name}_{i}" for i in range(1, len(names) + 2))]
    chosen = next(c for c in candidates if c not in names)
    names.add(chosen)
    return chosen
