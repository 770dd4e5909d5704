"""Every dtype and container that a user passes, under every dtype policy."""

import itertools

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_norm
from keras_norm import compat
from keras_norm import moments
from keras_norm.layers.no_norm import NoNormalization
from tests import reference
from tests.assertions import assert_close
from tests.assertions import to_numpy
from tests.backend_gradients import BACKEND
from tests.backend_gradients import MODES
from tests.backend_gradients import value_and_gradients
from tests.layers.members import MEMBERS
from tests.layers.members import Member
from tests.layers.members import each_batch_member
from tests.layers.members import each_member
from tests.layers.members import weights_of

SHAPE = (3, 4, 5, 6)


class Float64Variables(keras.dtype_policies.DTypePolicy):
    """Computes in float32 with weights in float64."""

    def __init__(self):
        super().__init__("float32")

    @property
    def variable_dtype(self):
        return "float64"


POLICIES = {
    name: name
    for name in (
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "mixed_float16",
        "mixed_bfloat16",
    )
}
POLICIES["float64_variables"] = Float64Variables()
DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int32",
    "uint8",
    "bool",
)
TOLERANCES = {
    "float64": 1e-11,
    "float32": 2e-5,
    "float16": 2e-3,
    "bfloat16": 1e-2,
}

LAYERS = {
    **MEMBERS,
    "compat_frn": Member(
        compat.FilterResponseNormalization,
        reference.frn,
        {"learned_epsilon": True},
    ),
    "compat_tlu": Member(compat.TLU, reference.tlu, {"affine": True}),
    "none": Member(NoNormalization, lambda x, weights: x),
}
# A layer of every class; the others are of the same code and run long.
FEW = (
    "frn_scalar_epsilon",
    "tlu_affine_capped",
    "bn",
    "frozen",
    "eval_norm",
    "gn",
    "rbn_std",
    "compat_frn",
    "none",
)


def array(dtype="float64", shape=SHAPE, seed=0):
    x = np.random.default_rng(seed).normal(0.7, 2.0, shape)
    if dtype == "bool":
        return x > 0.0
    if dtype == "uint8":
        return np.abs(10.0 * x).astype(dtype)
    if "int" in dtype:
        return (10.0 * x).astype(dtype)
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def as_float32(tensor):
    """An array in a dtype that NumPy calculates with."""
    wide = dtype_of(tensor) == "float64"
    return to_numpy(tensor if wide else keras.ops.cast(tensor, "float32"))


def check_inputs(name, policy, dtypes):
    policy = POLICIES[policy]
    member = LAYERS[name]
    for dtype, training in itertools.product(dtypes, (False, True)):
        layer = member.build(SHAPE, dtype=policy)
        weights, x = weights_of(layer), array(dtype)
        expected = member.expected(
            x.astype("float64"), weights, training=training
        )
        output = layer(x, training=training)
        assert dtype_of(output) == layer.compute_dtype, (dtype, training)
        rtol = TOLERANCES[layer.compute_dtype]
        assert_close(as_float32(output), expected, rtol)
        moved = weights_of(layer)
        assert all(np.isfinite(value).all() for value in moved.values())


# The first of them: https://github.com/tensorflow/tensorflow/issues/31547
# and https://github.com/tensorflow/tensorflow/issues/33365
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    "policy", ["float32", "float64", "mixed_bfloat16", "float64_variables"]
)
def test_every_dtype_equals_the_oracle(name, policy):
    check_inputs(name, policy, ("float64", "float32", "float16", "int32"))


@pytest.mark.long
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_dtype_of_every_layer_equals_the_oracle(name, policy):
    check_inputs(name, policy, DTYPES)


def peers():
    """Ours and Keras' own by name, with the same arguments."""
    return {
        "bn": (keras_norm.BatchNormalization, keras.layers.BatchNormalization),
        "gn": (
            lambda **kwargs: keras_norm.GroupNormalization(groups=2, **kwargs),
            lambda **kwargs: keras.layers.GroupNormalization(
                groups=2, **kwargs
            ),
        ),
    }


@pytest.mark.parametrize("name", ["bn", "gn"])
@pytest.mark.parametrize("policy", POLICIES)
def test_dtypes_are_those_of_keras(name, policy):
    ours, theirs = peers()[name]
    # Keras 3.8 gives integers of integers for group normalization.
    for dtype in DTYPES if name == "bn" else DTYPES[:4]:
        kwargs = {"training": True} if name == "bn" else {}
        x = array(dtype)
        pair = [cls(dtype=POLICIES[policy]) for cls in (ours, theirs)]
        output, expected = (layer(x, **kwargs) for layer in pair)
        assert dtype_of(output) == dtype_of(expected), dtype
        rtol = TOLERANCES[dtype_of(output)]
        # Keras' own rounds to the dtype of the inputs on the way.
        rtol = max(rtol, TOLERANCES.get(dtype, 2e-5), 2e-5)
        assert_close(as_float32(output), as_float32(expected), rtol)
        shape = keras.KerasTensor(SHAPE, dtype)
        specs = [layer.compute_output_spec(shape).dtype for layer in pair]
        assert specs[0] == specs[1] == dtype_of(output)


@each_batch_member
def test_moving_moments_follow_a_float64_batch(name):
    x = array()
    layer = MEMBERS[name].build(SHAPE, momentum=0.5)
    same = MEMBERS[name].build(SHAPE, momentum=0.5, dtype="float64")
    layer(x, training=True)
    same(x, training=True)
    for weight, value in weights_of(same).items():
        assert_close(weights_of(layer)[weight], value, 2e-5)


@each_member
def test_gradients_of_float64_inputs(name):
    results = []
    for dtype in ("float64", "float32"):
        layer = MEMBERS[name].build(SHAPE)
        x = array("float32").astype(dtype)
        results.append(
            value_and_gradients(layer, x, array(seed=1), training=True)
        )
    (output, to_x, to_weights), (_, narrow, others) = results
    assert output.dtype == "float32"
    assert to_x.dtype == "float64"
    assert_close(to_x, narrow)
    for key, value in others.items():
        assert to_weights[key].dtype == "float32"
        assert_close(to_weights[key], value)


XLA = [("bn", "float64"), ("bn", "int32"), ("frn_tlu", "float64")]


def run(layer, x, training, mode):
    if mode == "eager":
        return layer(x, training=training)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(jit_compile=mode == "xla", autograph=False)
        return compiled(lambda x: layer(x, training=training))(x)
    import jax

    weights = [v.value for v in layer.trainable_variables]
    moving = [v.value for v in layer.non_trainable_variables]
    return jax.jit(
        lambda x: layer.stateless_call(weights, moving, x, training=training)
    )(x)[0]


COMPILED = [
    (name, mode, dtype)
    for name in ("bn", "eval_norm", "rbn", "frn_tlu")
    for mode in MODES
    for dtype in ("float64", "bfloat16", "int32")
    # XLA takes long to compile.
    if mode == "graph" or (mode == "xla" and (name, dtype) in XLA)
]


@pytest.mark.parametrize(("name", "mode", "dtype"), COMPILED)
def test_compiled_functions_take_every_dtype(name, mode, dtype):
    member = LAYERS[name]
    x = array(dtype)
    for training in (False, True):
        layer = member.build(SHAPE)
        expected = member.expected(
            x.astype("float64"), weights_of(layer), training=training
        )
        output = run(layer, keras.ops.convert_to_tensor(x), training, mode)
        assert dtype_of(output) == "float32"
        assert_close(output, expected, 2e-5)


def foreign_tensors(x):
    """Tensors of every installed backend and Keras' own variable."""
    tensors = {
        "own": keras.ops.convert_to_tensor(x),
        "variable": keras.Variable(x),
    }
    if BACKEND != "torch":
        jax = pytest.importorskip("jax")
        tensors["jax"] = jax.numpy.asarray(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors["tensorflow"] = tf.Variable(x)
    if BACKEND == "torch":
        import torch

        tensors["torch"] = torch.tensor(x)
    return tensors


@pytest.mark.parametrize("name", FEW)
def test_tensors_of_every_library(name):
    member = LAYERS[name]
    x = array()
    for kind, tensor in foreign_tensors(x).items():
        layer = member.build(SHAPE)
        expected = member.expected(x, weights_of(layer), training=True)
        output = layer(tensor, training=True)
        assert dtype_of(output) == "float32", kind
        assert_close(output, expected, 2e-5)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("x", [array().tolist(), 3.0, 3])
def test_lists_and_numbers_are_refused_as_keras_refuses_them(name, x):
    for layer in (keras.layers.BatchNormalization(), LAYERS[name].build(SHAPE)):
        with pytest.raises(ValueError, match="Only input tensors may be"):
            layer(x)


@each_member
def test_a_number_of_numpy_has_too_few_axes(name):
    with pytest.raises(ValueError, match=r"Received: .*shape=\(\)"):
        MEMBERS[name].cls(**MEMBERS[name].kwargs)(np.float64(3.0))


@pytest.mark.parametrize("name", ["bn", "eval_norm", "rbn", "frn", "gn"])
@pytest.mark.parametrize("training", [False, True])
def test_masks_of_every_kind(name, training):
    member = MEMBERS[name]
    x = array()
    mask = np.random.default_rng(3).uniform(size=SHAPE[:-1]) < 0.6
    masks = {
        "array": mask,
        "list": mask.tolist(),
        "integers": mask.astype("int32"),
        "floats": mask.astype("float64"),
        "tensor": keras.ops.convert_to_tensor(mask),
    }
    means = []
    for kind in masks.values():
        layer = member.build(SHAPE)
        expected = member.expected(
            x, weights_of(layer), mask=mask, training=training
        )
        output = layer(x, mask=kind, training=training)
        assert_close(output, expected, 2e-5)
        # The next layer takes over the mask, from Keras 3.9 on.
        following = keras.layers.BatchNormalization()
        following(output, training=True)
        means.append(to_numpy(following.moving_mean))
    for mean in means[1:]:
        assert_close(mean, means[0])


@pytest.mark.parametrize("training", [True, 1, np.True_, np.int64(1)])
@each_batch_member
def test_training_of_every_kind(name, training):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    expected = member.expected(array(), weights_of(layer), training=True)
    assert_close(layer(array(), training=training), expected, 2e-5)


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
@pytest.mark.parametrize("name", ["bn", "frn"])
def test_fit_and_predict_of_every_dtype(name, dtype):
    x = array(dtype, (4, *SHAPE[1:]))
    y = array("float32", (4, 1))
    layer = MEMBERS[name].cls(**MEMBERS[name].kwargs)
    model = keras.Sequential(
        [layer, keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    data = x, y
    if BACKEND == "tensorflow":
        import tensorflow as tf

        data = (tf.data.Dataset.from_tensor_slices(data).batch(2),)
    model.fit(*data, shuffle=False, verbose=0)
    with_features = keras.Sequential([layer])
    expected = MEMBERS[name].expected(
        x.astype("float64"), weights_of(layer), training=False
    )
    assert_close(with_features.predict(x, verbose=0), expected, 2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_of_every_dtype(dtype):
    layer = MEMBERS["rbn"].build(SHAPE)
    x = array(dtype)
    level = reference.statistic("mean", x.astype("float64"), None)
    expected = x.astype("float64") + weights_of(layer)["center_weight"] * level
    for inputs in (x, x.astype("float32").tolist()):
        assert_close(layer.features(inputs)["centered"], expected, 2e-5)


def test_features_of_a_layer_without_weights_are_refused():
    layer = keras_norm.RBN(name="rbn")
    with pytest.raises(ValueError, match="Received: layer='rbn', built=False"):
        layer.features(array())


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_of_every_dtype(dtype):
    x = array(dtype)
    seen = x.astype("float64")
    rtol = 1e-11 if dtype == "float64" else 1e-5
    mean, variance, _ = moments.plane_moments(x, (1, 2))
    assert_close(mean, seen.mean((1, 2), keepdims=True), rtol)
    assert_close(variance, seen.var((1, 2), keepdims=True), rtol)
    square = moments.plane_mean_square(x, (1, 2))
    assert_close(square, (seen**2).mean((1, 2), keepdims=True), rtol)
