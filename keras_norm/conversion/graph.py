"""Keras' graph of a model; the one file that knows Keras' private names.

A *graph model* is a model whose computation is its graph: a Sequential, or a
Functional model whose class has no `call` of its own. A *node* is one call of
one operation (a layer, a nested model, or a bare operation such as `x + y`).
"""

import keras
from keras.src.models.functional import Functional as _Functional


def is_graph_model(operation):
    """Whether `operation` is a model that can be rebuilt from its graph.

    A bare `keras.Function` counts: it holds layers as a model does.
    """
    cls = type(operation)
    if isinstance(operation, keras.Sequential):
        is_built = operation._functional is not None
        return is_built and cls.call is keras.Sequential.call
    return isinstance(operation, keras.Function) and cls.call in (
        _Functional.call,
        keras.Function.call,
    )


def keeps_class(model):
    """Whether the class of a graph model can be built from its graph.

    A Functional subclass with a constructor of its own cannot.
    """
    bases = keras.Sequential, _Functional, keras.Function
    return type(model).__init__ in [base.__init__ for base in bases]


def nodes(model):
    """The nodes of this model alone, every one after what it needs.

    Those of a Sequential are the calls of its layers. What Keras records on the
    way by itself, masks and casts, is recorded again when a layer is called.
    """
    found = all_nodes(model)
    if isinstance(model, keras.Sequential):
        calls = {id(node.operation): node for node in found}
        return [calls[id(layer)] for layer in model.layers]
    return found


def all_nodes(model):
    """As `nodes`, with what Keras records by itself in a Sequential, too."""
    by_depth = _functional(model)._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def inputs(model):
    """The symbolic inputs, as nested as the model takes them."""
    return _functional(model)._inputs_struct


def outputs(model):
    """The symbolic outputs, as nested as the model gives them."""
    return _functional(model)._outputs_struct


def flat_outputs(model):
    """The symbolic outputs in a flat list."""
    return list(_functional(model).outputs)


def operation(node):
    """What is called."""
    return node.operation


def input_tensors(node):
    """The symbolic tensors that a call takes, in a flat list."""
    return node.input_tensors


def output_tensors(node):
    """The symbolic tensors that a call gives, in a flat list."""
    return node.outputs


def arguments(node, tensors=None):
    """`(args, kwargs)` of a call.

    Args:
        node: The call.
        tensors: Dict from the id of a symbolic tensor to what takes its place.
            None for the symbolic tensors themselves.
    """
    if tensors is None:
        tensors = {id(x): x for x in node.input_tensors}
    return node.arguments.fill_in(tensors)


def producing_node(tensor):
    """The node that gives a tensor, and the tensor's place in its outputs."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return node, history.tensor_index


def inner_layers(layer):
    """The layers inside a layer, at any depth; a bare operation has none."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return list(layer._flatten_layers(include_self=False))


def direct_layers(layer):
    """The layers that a layer holds itself."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def all_layers(model):
    """The model and every layer inside it, outer ones first."""
    return list(model._flatten_layers())


def copy_operation(operation):
    """A bare operation, which has no weights, without its calls."""
    # Keras takes `copy.copy` for a save and a load of the whole.
    copied = object.__new__(type(operation))
    vars(copied).update(vars(operation))
    copied._inbound_nodes = []
    copied._outbound_nodes = []
    return copied


def copy_lambda(layer):
    """A Lambda that calls the same Python function."""
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=dict(layer.arguments),
        name=layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _functional(model):
    if isinstance(model, keras.Sequential):
        return model._functional
    return model
