"""Keras' private names in `keras_norm.graphs.graph` still exist."""

import keras
import numpy as np
from keras import layers

from keras_norm import _keras_internals
from keras_norm.graphs import graph


def branched():
    x = keras.Input((4,), name="x")
    first = layers.Dense(4, name="first")
    inner = keras.Sequential([keras.Input((4,)), layers.ReLU()], name="inner")
    y = inner(first(x))
    return keras.Model({"x": x}, [x + y, first(y)], name="branched")


def test_nodes_are_in_order_of_computation():
    model = branched()
    operations = [graph.operation(node) for node in graph.nodes(model)]
    names = [operation.name for operation in operations]
    assert names[:2] == ["first", "inner"] and names.count("first") == 2
    made = {id(tensor) for tensor in keras.tree.flatten(graph.inputs(model))}
    for node in graph.nodes(model):
        assert all(id(tensor) in made for tensor in graph.input_tensors(node))
        made |= {id(tensor) for tensor in graph.output_tensors(node)}
    assert all(id(tensor) in made for tensor in graph.flat_outputs(model))


def test_inputs_and_outputs_keep_their_structure():
    model = branched()
    assert list(graph.inputs(model)) == ["x"]
    assert [t.shape for t in graph.outputs(model)] == [(None, 4)] * 2


def test_a_tensor_leads_to_the_node_that_outputs_it():
    model = branched()
    for node in graph.nodes(model):
        for index, tensor in enumerate(graph.output_tensors(node)):
            assert graph.producing_node(tensor) == (node, index)


def test_arguments_of_a_call_are_filled_in():
    model = branched()
    node = graph.nodes(model)[0]
    args, kwargs = graph.arguments(node)
    (tensor,) = graph.input_tensors(node)
    assert args[0] is tensor and not kwargs.get("mask")
    args, _ = graph.arguments(node, {id(tensor): "other"})
    assert args[0] == "other"


def test_layers_are_listed_at_every_depth():
    model = branched()
    inner = model.get_layer("inner")
    assert _keras_internals.all_layers(model)[0] is model
    assert model.get_layer("first") in _keras_internals.direct_layers(model)
    relu = inner.layers[0]
    assert relu in _keras_internals.inner_layers(model)
    assert relu not in _keras_internals.direct_layers(model)
    assert _keras_internals.inner_layers(keras.ops.relu) == []


def test_only_models_defined_by_their_graph_are_graph_models():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    class Constructed(keras.Model):
        def __init__(self, size):
            x = keras.Input((size,))
            super().__init__(x, layers.Dense(1)(x))

    assert graph.is_graph_model(branched())
    assert graph.is_graph_model(branched().get_layer("inner"))
    assert not graph.is_graph_model(keras.Sequential([layers.Dense(1)]))
    assert not graph.is_graph_model(Subclassed())
    assert graph.is_graph_model(Constructed(3))
    assert graph.keeps_class(branched())
    assert not graph.keeps_class(Constructed(3))


def test_copies_of_operations_and_lambdas_have_no_calls():
    x = keras.Input((3,))
    y = keras.ops.clip(x, -1, 2)
    node, _ = graph.producing_node(y)
    copy = graph.copy_operation(graph.operation(node))
    values = np.array([[-5.0, 0.5, 5.0]], "float32")
    result = keras.ops.convert_to_numpy(copy(values))
    np.testing.assert_array_equal(result, [[-1.0, 0.5, 2.0]])
    assert node.operation is not copy and not copy._inbound_nodes
    layer = layers.Lambda(lambda x: 2 * x, output_shape=(3,), name="double")
    copy = graph.copy_lambda(layer)
    assert copy.name == "double" and copy.function is layer.function
    assert copy.compute_output_shape((None, 3)) == (None, 3)
