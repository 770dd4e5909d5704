"""A conversion leaves two models, of which neither has memory of the other."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_norm
from keras_norm import analysis
from keras_norm import variables
from keras_norm.conversion import weights
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.conversion import small_models

BACKEND = keras.backend.backend()


def noisy():
    """Layers that load in a way of their own, and seeds that move."""
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    y = keras_norm.RBN(name="rbn")(layers.Dropout(0.5)(y))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(2, name="head")(y))


def nested():
    inner = keras.Sequential([keras.Input((6, 6, 3)), *noisy().layers[1:]])
    x = keras.Input((6, 6, 3))
    return keras.Model(x, layers.Dense(2)(inner(x)))


def tied():
    """The kernel of one layer is an argument of an operation."""
    x = keras.Input((6, 6, 3))
    dense = layers.Dense(3, name="dense")
    y = layers.BatchNormalization(name="bn")(dense(x))
    y = ops.matmul(y, dense.kernel)
    return keras.Model(x, layers.GlobalAveragePooling2D()(y))


def addresses(model):
    """Returns the memory address of each variable's value."""
    if BACKEND == "jax":
        return [v.value.unsafe_buffer_pointer() for v in model.variables]
    if BACKEND == "torch":
        return [v.value.data_ptr() for v in model.variables]
    return [id(v) for v in model.variables]


def numbers(model):
    return [np.array(to_numpy(v)) for v in model.variables]


def fit(model, inputs):
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.5), "mse", metrics=["mae"])
    model.fit(inputs, np.ones((len(inputs), model.output.shape[-1])), verbose=0)


def evaluate(model, inputs):
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.5), "mse", metrics=["mae"])
    targets = np.ones((len(inputs), model.output.shape[-1]))
    model.evaluate(inputs, targets, verbose=0)


def predict(model, inputs):
    return model.predict(inputs, verbose=0)


@pytest.mark.parametrize("norm", ["bn", "brn", "rbn", "frn", "gn"])
@pytest.mark.parametrize(
    "build",
    [
        noisy,
        nested,
        tied,
        small_models.own_weights,
        small_models.adapted,
        small_models.borrowed,
    ],
    ids=lambda build: build.__name__,
)
def test_no_memory_is_shared(build, norm):
    model = build()
    converted, _ = keras_norm.convert(model, norm)
    found = [*addresses(model), *addresses(converted)]
    assert len(set(found)) == len(found)
    ours = {id(part) for part in small_models.every_layer(converted)}
    assert not ours & {id(part) for part in small_models.every_layer(model)}
    before = numbers(converted)
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    for old, new in zip(before, converted.variables, strict=True):
        assert_array_equal(new, old)


# `predict` donates what it computes with, as `fit` does:
# https://github.com/keras-team/keras/pull/20851
@pytest.mark.parametrize(
    "build",
    [noisy, pytest.param(nested, marks=pytest.mark.long)],
    ids=lambda build: build.__name__,
)
@pytest.mark.parametrize("source_first", [True, False])
def test_both_models_go_on(build, source_first, tmp_path):
    model = build()
    small_models.fill(model)
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    inputs = np.random.default_rng(0).normal(size=(8, 6, 6, 3))
    inputs = inputs.astype("float32")
    expected = predict(model, inputs)
    converted, _ = keras_norm.convert(model, "bn")
    pair = [model, converted] if source_first else [converted, model]
    for step in (predict, fit, evaluate, predict, fit):
        for one, other in (pair, pair[::-1]):
            before = numbers(other)
            step(one, inputs)
            for old, new in zip(before, other.variables, strict=True):
                assert_array_equal(new, old)
    for name, each in zip(("one", "other"), pair, strict=True):
        assert np.abs(predict(each, inputs) - expected).max() > 1e-3
        each.save(tmp_path / f"{name}.keras")
        again = keras.saving.load_model(tmp_path / f"{name}.keras")
        np.testing.assert_allclose(
            predict(again, inputs), predict(each, inputs), rtol=1e-5
        )


def test_tied_weights_are_tied_to_the_new_layer():
    model = tied()
    small_models.fill(model)
    converted, _ = keras_norm.convert(model, "bn")
    inputs = np.random.default_rng(0).normal(size=(2, 6, 6, 3))
    inputs = inputs.astype("float32")
    assert_array_equal(converted(inputs), model(inputs))
    model.get_layer("dense").kernel.assign(np.zeros((3, 3)))
    assert np.any(to_numpy(converted(inputs)))
    converted.get_layer("dense").kernel.assign(np.zeros((3, 3)))
    assert not np.any(to_numpy(converted(inputs)))


def test_a_variable_of_no_layer_and_a_tensor_are_copied():
    scale = keras.Variable(np.full(3, 2.0, "float32"), name="scale")
    shift = ops.convert_to_tensor(np.ones(3, "float32"))
    x = keras.Input((3,))
    y = layers.BatchNormalization()(ops.multiply(x, scale))
    model = keras.Model(x, ops.add(y, shift))
    inputs = np.ones((2, 3), "float32")
    expected = to_numpy(model(inputs))
    converted, _ = keras_norm.convert(model, "bn")
    scale.assign(np.zeros(3))
    assert_array_equal(converted(inputs), expected)


def test_a_weight_of_a_later_layer_raises_an_error():
    x = keras.Input((3,))
    late = layers.Dense(3, name="late")
    late.build((None, 3))
    y = layers.BatchNormalization()(ops.matmul(x, late.kernel))
    model = keras.Model(x, late(y))
    with pytest.raises(keras_norm.ConversionError, match="late/kernel"):
        keras_norm.convert(model, "bn")


def test_a_value_read_is_independent_of_training():
    model = noisy()
    learned = analysis.learned_values(model)["rbn"]
    kept = variables.read_copy(model.get_layer("head").kernel)
    before = {name: value.copy() for name, value in learned.items()}
    start = kept.copy()
    inputs = np.random.default_rng(0).normal(size=(4, 6, 6, 3))
    fit(model, inputs.astype("float32"))
    for name, value in learned.items():
        assert_array_equal(value, before[name])
    assert_array_equal(kept, start)
    assert np.any(kept != to_numpy(model.get_layer("head").kernel))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_a_variable_keeps_its_dtype_and_nothing_of_the_source(dtype):
    source = keras.Variable(np.arange(64), trainable=False, dtype=dtype)
    target = keras.Variable(np.zeros(64), dtype="float32")
    variables.copy_values([source], [target])
    assert keras.backend.standardize_dtype(target.dtype) == "float32"
    array = np.arange(64, dtype="float32")
    variables.assign_copy(source, array)
    array[:] = 0
    source.assign(np.zeros(64))
    assert_array_equal(target, np.arange(64, dtype="float32"))


def adapted(size=None):
    x = keras.Input((size, size, 3))
    norm = layers.Normalization(name="adapted")
    norm.build((None, size, size, 3))
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (4, 6, 6, 3)))
    return keras.Model(x, layers.Conv2D(2, 3)(norm(x)))


# Layers with a state of their own: a copy of the weights alone is not enough.
def test_a_rebuilt_network_keeps_adapted_statistics():
    if BACKEND != "tensorflow":
        pytest.skip("the recipes run on TensorFlow")
    pytest.importorskip("absl")
    from recipes.detection import backbones
    from recipes.models import precision

    model = adapted(8)
    inputs = np.random.default_rng(1).normal(size=(2, 8, 8, 3))
    inputs = inputs.astype("float32")
    again = precision.rebuild_in_float32(model)
    assert_array_equal(again(inputs), model(inputs))
    model = adapted()
    assert_array_equal(
        backbones._resized("it", model, (8, 8, 3))(inputs), model(inputs)
    )
    twin = adapted()
    weights.copy_weights(model, twin)
    assert_array_equal(twin(inputs), model(inputs))
