"""Which activations follow which norms, over additions and nested models."""

import collections
import dataclasses
import math

from keras_norm.conversion import graph
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import report
from keras_norm.errors import ConversionError
from keras_norm.layers.tlu import TLU

POLICIES = ("auto", "keep", "tlu")


def check_policy(policy, norm_name):
    """Raises a ConversionError for what is no policy.

    Args:
        policy: `"keep"`: every activation stays. `"auto"`: a ReLU behind a
            replaced layer, or behind an addition with one among its branches,
            becomes the norm's own activation, which is TLU for FRN and the ReLU
            itself for the others; a ReLU6 and everything else stays. `"tlu"`:
            the same ReLUs become TLU under any norm, and a ReLU6 there becomes
            `min(TLU, 6)`.
        norm_name: For the message.
    """
    if policy not in POLICIES:
        raise ConversionError(
            "`activation` is one of 'auto', 'keep' and 'tlu'. "
            f"Received: activation={policy!r}, norm={norm_name!r}"
        )


def threshold_cap(operation, policy, has_own):
    """The cap of the TLU that takes a ReLU's place; None if the ReLU stays.

    Args:
        operation: What is called behind a replaced layer.
        policy: As in `check_policy`.
        has_own: Whether the norm has an activation of its own.
    """
    cap = layer_predicates.relu_cap(operation)
    if cap is None or policy == "keep":
        return None
    if policy == "auto" and (cap != math.inf or not has_own):
        return None
    return cap


def find_source_norms(tensor, is_norm=layer_predicates.is_batch_norm):
    """The normalizations whose outputs a tensor is made of.

    Looks back through additions of branches, dropout, and the outputs of
    nested models; not out of a nested model, which may be called from many
    places.

    Returns:
        `(layers, direct)`: the layers, each once, and whether no addition lies
        between.
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


def make_threshold(norm, operation, source, name, cap):
    """The new activation in place of a ReLU.

    Args:
        norm: A `keras_norm.Norm`, or a function.
        operation: The ReLU, a layer or a bare operation.
        source: The batch normalization before it, for what a bare operation
            does not know: the axis, the dtype policy, `trainable`.
        name: Of the new layer.
        cap: The upper bound, infinity for none.
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
            before, direct = find_source_norms(graph.input_tensors(node)[0])
            cap = None
            if any(id(layer) in layers for layer in before):
                cap = threshold_cap(operation, policy, has_own)
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
            made[call.key] = make_threshold(
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
