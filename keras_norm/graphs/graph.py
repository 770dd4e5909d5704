"""Reads the functional graph of a model, through Keras' private names.

A *graph model* is a model that is computed by its graph: a Sequential, or a
Functional model whose class does not override `call`. A *node* is one call of
one operation (a layer, a nested model, or a bare operation such as `x + y`).

The private names of Keras that this file uses were seen in Keras 3.8 to 3.15:
`Functional`, `_functional`, `_nodes_by_depth`, `_inputs_struct`,
`_outputs_struct`, `_keras_history`, `_inbound_nodes`, `_outbound_nodes`,
`_flatten_layers`, and `Lambda._output_shape`.
"""

import inspect

import keras
from keras.src.models.functional import Functional as _Functional


def is_graph_model(operation):
    """Returns True if `operation` is a model defined by its graph.

    A bare `keras.Function` counts: it contains layers like a model.
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
    """Returns True if a graph model can be rebuilt as its own class.

    A Functional subclass that overrides the constructor cannot.
    """
    bases = keras.Sequential, _Functional, keras.Function
    return type(model).__init__ in [base.__init__ for base in bases]


def nodes(model):
    """Returns a model's nodes in order of computation, without nested models.

    The nodes of a Sequential are the calls of its layers: Keras records its
    masks and casts again when the layers are called again.
    """
    found = all_nodes(model)
    if isinstance(model, keras.Sequential):
        calls = {id(node.operation): node for node in found}
        return [calls[id(layer)] for layer in model.layers]
    return found


def all_nodes(model):
    """Returns `nodes`, with the masks and casts that a Sequential records."""
    by_depth = _functional(model)._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def inputs(model):
    """Returns the symbolic inputs, in the model's nested structure."""
    return _functional(model)._inputs_struct


def outputs(model):
    """Returns the symbolic outputs, in the model's nested structure."""
    return _functional(model)._outputs_struct


def flat_inputs(model):
    """Returns the symbolic inputs in a flat list."""
    return list(_functional(model).inputs)


def flat_outputs(model):
    """Returns the symbolic outputs in a flat list."""
    return list(_functional(model).outputs)


def operation(node):
    """Returns the operation that a node calls."""
    return node.operation


def input_tensors(node):
    """Returns a call's symbolic inputs in a flat list."""
    return node.input_tensors


def output_tensors(node):
    """Returns a call's symbolic outputs in a flat list."""
    return node.outputs


def arguments(node, tensors=None):
    """Returns `(args, kwargs)` of a call.

    Args:
        node: The call.
        tensors: Dict from the ids of symbolic tensors to the tensors that
            replace them. None to keep the symbolic tensors.
    """
    if tensors is None:
        tensors = {id(x): x for x in node.input_tensors}
    return node.arguments.fill_in(tensors)


def accepted_arguments(new, old, args, kwargs):
    """Returns the arguments of a layer's call that another layer accepts.

    Returns:
        `(args, kwargs)`; `args` holds the inputs alone.
    """
    given = inspect.signature(old.call).bind(*args, **kwargs).arguments
    inputs = given.pop("inputs")
    parameters = inspect.signature(new.call).parameters
    return (inputs,), {k: v for k, v in given.items() if k in parameters}


def producing_node(tensor):
    """Returns the node that outputs a tensor, and the output's index."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return node, history.tensor_index


def copy_operation(operation):
    """Copies a bare operation, which has no weights, without its calls."""
    # `copy.copy` would make Keras serialize the operation and load it again.
    copied = object.__new__(type(operation))
    vars(copied).update(vars(operation))
    copied._inbound_nodes = []
    copied._outbound_nodes = []
    return copied


def copy_lambda(layer):
    """Copies a Lambda layer; the copy calls the same Python function."""
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
