"""Activations that follow replaced norms: their policy and their thresholds."""

import collections
import dataclasses
import math

from keras_norm.conversion import entries
from keras_norm.conversion import layer_predicates
from keras_norm.errors import ConversionError
from keras_norm.graphs import graph
from keras_norm.layers.tlu import TLU

POLICIES = ("auto", "keep", "tlu")


@dataclasses.dataclass(frozen=True)
class ActivationCall:
    """A call of an activation in a graph.

    Attributes:
        path: Name of the activation, after the names of its nested models.
        operation: The activation.
        node: The call.
        was: Name of the activation function.
        layers: Tuple of the norms whose outputs reach the call.
        direct: True if no addition lies between them and the call.
        cap: Upper bound of the TLU that replaces the activation, infinity for
            none; None if the activation is kept.
    """

    path: str
    operation: object
    node: object
    was: str
    layers: tuple
    direct: bool
    cap: float | None

    @property
    def key(self):
        """Key that is equal for calls that share one threshold."""
        is_shared = self.direct and len(self.layers) == 1
        source = self.layers[0] if is_shared else self.node
        return id(self.operation), id(source)


def check_policy(policy, norm_name):
    """Raises a ConversionError for an unknown policy.

    Args:
        policy: `"keep"`: keep every activation. `"auto"`: replace a ReLU behind
            a replaced layer, or behind an addition with such a layer in one of
            its branches, by the norm's own activation, which is TLU for FRN and
            the ReLU itself for the others; keep ReLU6 and everything else.
            `"tlu"`: replace the same ReLUs by TLU under any norm, and ReLU6 by
            `min(TLU, 6)`.
        norm_name: Name of the norm, for the message.
    """
    if policy not in POLICIES:
        raise ConversionError(
            "`activation` must be one of 'auto', 'keep' and 'tlu'. "
            f"Received: activation={policy!r}, norm={norm_name!r}"
        )


def threshold_cap(operation, policy, has_own):
    """Returns the cap of the TLU that replaces a ReLU; None to keep the ReLU.

    Args:
        operation: The operation that is called behind a replaced layer.
        policy: See `check_policy`.
        has_own: True if the norm has its own activation.
    """
    cap = layer_predicates.relu_cap(operation)
    if cap is None or policy == "keep":
        return None
    if policy == "auto" and (cap != math.inf or not has_own):
        return None
    return cap


def find_source_norms(tensor, is_norm=layer_predicates.is_batch_norm):
    """Finds the normalization layers whose outputs form a tensor.

    Looks back through additions of branches, dropout, and the outputs of
    nested models, but not out of a nested model, which may be called in many
    places.

    Returns:
        `(layers, direct)`: the layers, without duplicates, and True if no
        addition lies between.
    """
    found, direct = [], True
    stack, seen = [tensor], set()
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        node, index = graph.producing_node(current)
        operation = graph.operation(node)
        inputs = graph.input_tensors(node)
        if is_norm(operation):
            if all(operation is not layer for layer in found):
                found.append(operation)
        elif layer_predicates.is_identity(operation) and inputs:
            stack.append(inputs[0])
        elif layer_predicates.is_addition(operation, len(inputs)):
            direct = False
            stack.extend(reversed(inputs))
        elif graph.is_graph_model(operation):
            stack.append(graph.flat_outputs(operation)[index])
    return found, direct


def find_activation_calls(graphs, layers, norm, policy):
    """Finds every call of an activation and decides how to convert it.

    Args:
        graphs: List of `(prefix of paths, model)`.
        layers: Dict whose keys are the ids of the layers to replace.
        norm: A `keras_norm.Norm`, or a function.
        policy: See `check_policy`.

    Returns:
        List of `ActivationCall`.
    """
    has_own = getattr(norm, "has_own_activation", False)
    calls = []
    for prefix, model in graphs:
        for node in graph.nodes(model):
            operation = graph.operation(node)
            was = layer_predicates.activation_name(operation)
            if was is None:
                continue
            norms, direct = find_source_norms(graph.input_tensors(node)[0])
            cap = None
            if any(id(layer) in layers for layer in norms):
                cap = threshold_cap(operation, policy, has_own)
            calls.append(
                ActivationCall(
                    path=prefix + operation.name,
                    operation=operation,
                    node=node,
                    was=was,
                    layers=tuple(norms),
                    direct=direct,
                    cap=cap,
                )
            )
    return calls


def make_thresholds(graphs, calls, norm):
    """Returns a dict from node ids to the activations that replace them."""
    uses = collections.defaultdict(set)
    for call in calls:
        uses[id(call.operation)].add(None if call.cap is None else call.key)
    names = {
        graph.operation(node).name
        for _, model in graphs
        for node in graph.nodes(model)
    }
    by_key, thresholds = {}, {}
    for call in calls:
        if call.cap is None:
            continue
        if call.key not in by_key:
            name = call.operation.name
            if len(uses[id(call.operation)]) > 1:
                # The ReLU is kept for other tensors, or replaced by several.
                name = _unique(f"{name}_{call.layers[0].name}", names)
            by_key[call.key] = _make_threshold(
                norm, call.operation, call.layers[0], name, call.cap
            )
        thresholds[id(call.node)] = by_key[call.key]
    return thresholds


def activation_entries(layer, calls):
    """Returns the report's `Activation` entries of a batch normalization."""
    return tuple(
        entries.Activation(call.path, call.was, _becomes(call.cap))
        for call in calls
        if any(layer is source for source in call.layers)
    )


def activation_hints(calls, layers, norm, policy):
    """Returns a list with at most one hint to try another `activation`.

    Args:
        calls: The result of `find_activation_calls`.
        layers, norm, policy: See `find_activation_calls`.
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
        f"Capped ReLUs that are kept behind new norms: {len(capped)}. "
        f"activation='tlu' (--activation tlu) converts each to {becomes}."
    )
    return [hint]


def _make_threshold(norm, operation, source, name, cap):
    """Creates the activation that replaces a ReLU.

    Args:
        norm: A `keras_norm.Norm`, or a function.
        operation: The ReLU, a layer or a bare operation.
        source: The batch normalization before it, which has the axis, and the
            dtype policy and `trainable` that a bare operation lacks.
        name: Name of the new layer.
        cap: Upper bound, infinity for none.
    """
    like = operation if hasattr(operation, "dtype_policy") else source
    kwargs = {
        "axis": source.axis,
        "name": name,
        "dtype": like.dtype_policy,
        "trainable": like.trainable,
    }
    if getattr(norm, "has_own_activation", False) and cap == math.inf:
        return norm.activation(**kwargs)
    return TLU(max_value=None if cap == math.inf else cap, **kwargs)


def _becomes(cap):
    if cap is None:
        return None
    return "TLU" if cap == math.inf else f"min(TLU, {cap:g})"


def _unique(name, names):
    candidates = [name, *(f"{name}_{i}" for i in range(1, len(names) + 2))]
    chosen = next(c for c in candidates if c not in names)
    names.add(chosen)
    return chosen
