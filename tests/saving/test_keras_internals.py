"""The private names of Keras that loading needs still exist."""

import keras
import pytest
from keras import layers

from keras_norm.saving import keras_internals


def test_every_weight_is_a_variable_that_init_creates(monkeypatch):
    shapes = []
    init = keras_internals.Variable.__init__

    def record(self, initializer, shape=None, *args, **kwargs):
        shapes.append(shape)
        return init(self, initializer, shape, *args, **kwargs)

    monkeypatch.setattr(keras_internals.Variable, "__init__", record)
    layers.Dense(5).build((None, 3))
    assert {(3, 5), (5,)} <= set(map(tuple, filter(None, shapes)))


def test_functional_models_read_calls_with_deserialize_node(monkeypatch):
    calls = []
    read = keras_internals.functional.deserialize_node

    def record(node_data, created_layers):
        calls.append(node_data)
        return read(node_data, created_layers)

    monkeypatch.setattr(keras_internals.functional, "deserialize_node", record)
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4)(x)))
    keras.Model.from_config(model.get_config())
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("Dense", "keras.layers", layers.Dense),
        ("Dense", None, layers.Dense),
        ("Functional", None, keras.Model),
        (
            "GlorotUniform",
            "keras.initializers",
            keras.initializers.GlorotUniform,
        ),
        ("Nothing", "keras.layers", None),
        ("system", "os", None),
    ],
)
def test_classes_are_found_by_name_and_module(name, module, expected):
    assert keras_internals.find_class(name, module) is expected


def test_bare_operations_are_found_in_their_module():
    x = keras.Input((3,))
    operation = keras.ops.relu(x)._keras_history.operation
    cls = type(operation)
    found = keras_internals.find_class(cls.__name__, cls.__module__)
    assert found is cls and keras_internals.is_model_class(found)


def test_functions_of_models_are_found_and_others_are_not():
    assert keras_internals.is_model_function("relu", "builtins")
    assert keras_internals.is_model_function("relu", "keras.activations")
    assert not keras_internals.is_model_function("system", "os")
    assert not keras_internals.is_model_function("get", "keras.activations")
