"""Which activations follow which norms, over additions and nested models."""

import math

from keras_norm.conversion import graph
from keras_norm.conversion import layer_predicates
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
