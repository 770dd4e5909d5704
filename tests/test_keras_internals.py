"""Private names in `keras_norm/_keras_internals.py` still exist."""

import importlib
import inspect
import pathlib

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm import _keras_internals
from keras_norm import rematerialization

BACKEND = keras.backend.backend()
MODULES = {
    "tensorflow": "tensorflow.python.ops.custom_gradient",
    "torch": "torch.utils.checkpoint",
}


@pytest.mark.skipif(BACKEND not in MODULES, reason="no private names of JAX")
def test_the_recomputing_function_exists():
    module = importlib.import_module(MODULES[BACKEND])
    path = pathlib.Path(inspect.getsourcefile(module)).as_posix()
    names = [
        name
        for end, name in _keras_internals.RECOMPUTING_FUNCTIONS
        if path.endswith(end)
    ]
    assert names
    source = inspect.getsource(module)
    assert all(f"def {name}(" in source for name in names)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="private to TensorFlow")
def test_a_function_compiled_by_xla_is_recognized():
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    assert callable(control_flow_util.GraphOrParentsInXlaContext)
    found = {}

    def record(name):
        found[name] = _keras_internals.is_compiled_for_cpu(None)

    tf.function(lambda: record("graph"))()
    tf.function(lambda: record("compiled"), jit_compile=True)()
    record("eager")
    is_cpu = not tf.config.list_logical_devices("GPU")
    assert found == {"graph": False, "compiled": is_cpu, "eager": False}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="private to TensorFlow")
def test_a_recomputed_call_is_recognized():
    import tensorflow as tf

    calls = []

    @tf.recompute_grad
    def square(x):
        calls.append(rematerialization.is_recomputing())
        return x * x

    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = square(x)
    assert float(tape.gradient(y, x)) == 6.0
    assert calls == [False, True]


def test_layers_inside_layers_are_found():
    inner = keras.Sequential([keras.layers.ReLU(name="relu")], name="inner")
    wrapper = keras.layers.TimeDistributed(keras_norm.FRN(name="frn"))
    model = keras.Sequential([keras.Input((2, 4, 3)), inner, wrapper])
    model(np.zeros((1, 2, 4, 3), "float32"))
    names = [layer.name for layer in _keras_internals.all_layers(model)]
    assert names[0] == model.name
    assert {"inner", "relu", "frn"} < set(names)
    children = _keras_internals.direct_layers(model)
    assert inner in children and wrapper in children
    assert not _keras_internals.direct_layers(keras_norm.TLU())
