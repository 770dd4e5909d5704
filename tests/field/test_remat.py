"""Rematerialization: the same gradients, and state that moves once."""

import contextlib
import functools
import itertools

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm import compat
from keras_norm.layers.no_norm import NoNormalization
from tests.assertions import assert_close
from tests.assertions import to_numpy
from tests.backend_gradients import BACKEND
from tests.backend_gradients import value_and_gradients

if not hasattr(keras, "RematScope"):
    pytest.skip("Keras is too old for it", allow_module_level=True)

only_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="an API of TensorFlow"
)
# There `jax.checkpoint` keeps what it traced first, with the weights in it:
# Keras' own layers are not trained either.
not_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="keras.remat of a layer does not train on JAX"
)

SHAPE = (4, 5, 3, 6)
BATCH = dict(momentum=0.5)
LAYERS = {
    "frn": lambda **kw: keras_norm.FRN(
        learned_epsilon=True, activation="tlu", **kw
    ),
    "frn_groups": lambda **kw: keras_norm.FRN(
        groups=2, subtract_mean=True, **kw
    ),
    "tlu": lambda **kw: keras_norm.TLU(affine=True, **kw),
    "gn": lambda **kw: keras_norm.GroupNormalization(groups=2, **kw),
    "bn": lambda **kw: keras_norm.BatchNormalization(**BATCH, **kw),
    "bn_renorm": lambda **kw: keras_norm.BatchNormalization(
        renorm=True, **BATCH, **kw
    ),
    "bn_synchronized": lambda **kw: keras_norm.BatchNormalization(
        synchronized=True, **BATCH, **kw
    ),
    "eval_norm": lambda **kw: keras_norm.EvalNorm(
        mean_mix_initializer="ones", **BATCH, **kw
    ),
    "rbn": lambda **kw: keras_norm.RBN(**BATCH, **kw),
    "rbn_std": lambda **kw: keras_norm.RBN(
        center_statistic="std", scale_statistic="std", **BATCH, **kw
    ),
    "rbn_group": lambda **kw: keras_norm.RBN(
        statistics="group", groups=2, **kw
    ),
    "frozen": keras_norm.FrozenBatchNormalization,
    "none": NoNormalization,
    "compat_frn": lambda **kw: compat.FilterResponseNormalization(
        learned_epsilon=True, **kw
    ),
    "compat_tlu": lambda **kw: compat.TLU(affine=True, **kw),
}
FEW = ("tlu", "gn", "bn_renorm", "eval_norm", "rbn", "frozen", "compat_frn")
WITH_STATE = ("bn", "bn_renorm", "eval_norm", "rbn", "rbn_std")
SCOPES = {
    "full": dict(mode="full"),
    "activations": dict(mode="activations"),
    "list_of_layers": dict(mode="list_of_layers", layer_names=["norm"]),
    "larger_than": dict(mode="larger_than", output_size_threshold=10),
    "smaller_than": dict(mode="larger_than", output_size_threshold=10**6),
}
RUNS = {
    "tensorflow": {
        "eager": dict(run_eagerly=True),
        "graph": dict(jit_compile=False),
        "xla": dict(jit_compile=True),
    },
    "jax": {"xla": dict(jit_compile=True)},
    "torch": {"eager": dict(jit_compile=False)},
}[BACKEND]
FAST = {"tensorflow": "graph", "jax": "xla", "torch": "eager"}[BACKEND]


def array(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.7, 2.0, shape).astype("float32")


def scope_of(name):
    return (
        keras.RematScope(**SCOPES[name]) if name else contextlib.nullcontext()
    )


def spread(variables):
    """Gives every variable different values, so that all have gradients."""
    generator = np.random.default_rng(1)
    for variable in variables:
        variable.assign(generator.uniform(0.2, 0.9, variable.shape))


def fit(norm, run=FAST, wrap=lambda norm: norm, steps=2, x=None):
    """Returns all weights by name after some steps of `fit`, and the norm's."""
    x = array() if x is None else x
    inputs = keras.Input(SHAPE[1:], dtype=x.dtype.name)
    outputs = keras.layers.Flatten()(wrap(norm)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
    spread(model.variables)
    model.compile(keras.optimizers.SGD(0.01), "mse", **RUNS[run])
    y = array((len(x), 1), 1)
    model.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
    return {
        f"{i} {v.name}": to_numpy(v).astype("float64")
        for i, v in enumerate(model.variables)
    }


@functools.cache
def fit_without(name, run, **kwargs):
    return fit(LAYERS[name](name="norm", **kwargs), run)


def check_fit(name, mode, run=FAST, **kwargs):
    expected = fit_without(name, run, **kwargs)
    with scope_of(mode):
        norm = LAYERS[name](name="norm", **kwargs)
    results = fit(norm, run)
    assert list(results) == list(expected)
    for key, value in expected.items():
        assert_close(results[key], value, 1e-4)


# https://github.com/keras-team/keras/issues/21207
@pytest.mark.parametrize(
    "name",
    [
        name if name in FEW else pytest.param(name, marks=pytest.mark.long)
        for name in LAYERS
    ],
)
def test_fit_in_a_scope_equals_fit_without(name):
    check_fit(name, "list_of_layers")


@pytest.mark.parametrize(
    ("name", "mode"), [*(("frn", mode) for mode in SCOPES), ("bn", "full")]
)
def test_every_mode_of_a_scope(name, mode):
    check_fit(name, mode)


@only_tensorflow
@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("frn", "eager"),
        ("bn_renorm", "eager"),
        ("rbn", "eager"),
        # XLA takes long to compile.
        pytest.param("frn", "xla", marks=pytest.mark.long),
        pytest.param("bn_renorm", "xla", marks=pytest.mark.long),
        pytest.param("rbn", "xla", marks=pytest.mark.long),
    ],
)
def test_a_scope_in_eager_and_compiled_runs(name, run):
    check_fit(name, "full", run)


@pytest.mark.long
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mode", SCOPES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_in_every_mode_and_run(name, mode, run):
    check_fit(name, mode, run)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", ["frn", "bn"])
def test_a_scope_under_other_policies(name, policy):
    check_fit(name, "full", dtype=policy)


# Twice 0.5 would be 0.75: https://github.com/pfnet/pytorch-pfn-extras/pull/117
# and https://github.com/facebookresearch/fairscale/issues/1035
@pytest.mark.parametrize("name", WITH_STATE)
def test_moving_moments_move_once_in_a_scope(name):
    with scope_of("full"):
        norm = LAYERS[name](name="norm", moving_mean_initializer="zeros")
    norm.build((None, *SHAPE[1:]))
    x = array()
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, keras.layers.Flatten()(norm(inputs)))
    model.compile("sgd", "mse", **RUNS[FAST])
    model.fit(x, array((4, 90), 1), batch_size=4, verbose=0)
    # A new RBN centers by nothing.
    wide = x.astype("float64")
    assert_close(norm.moving_mean, 0.5 * wide.mean((0, 1, 2)), 1e-5)
    if name != "bn_renorm":
        expected = 0.5 + 0.5 * wide.var((0, 1, 2))
        assert_close(norm.moving_variance, expected, 1e-5)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("bn", lambda: keras.layers.BatchNormalization(**BATCH, name="norm")),
        ("gn", lambda: keras.layers.GroupNormalization(groups=2, name="norm")),
    ],
)
def test_a_scope_equals_keras_without_one(name, peer):
    expected = fit(peer())
    with scope_of("full"):
        norm = LAYERS[name](name="norm")
    results = fit(norm)
    for key, value in expected.items():
        assert_close(results[key], value, 1e-4)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces the layer once")
@pytest.mark.parametrize("mode", SCOPES)
def test_a_scope_calls_the_layer_again_in_the_backward_pass(mode):
    calls = []

    class Counted(keras_norm.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            calls.append(training)
            return super().call(inputs, training, mask)

    with scope_of(mode):
        norm = Counted(name="norm")
    fit(norm, "eager", steps=1)
    # Building on torch calls it as well, with `training=False`.
    expected = 1 if mode in ("activations", "smaller_than") else 2
    assert calls.count(True) == expected


@pytest.mark.parametrize("name", ["frn", "bn"])
def test_masks_in_a_scope(name):
    mask = np.random.default_rng(3).uniform(size=SHAPE[:-1]) < 0.6
    results = []
    for mode in (None, "full"):
        with scope_of(mode):
            norm = LAYERS[name]()
        norm.build(SHAPE)
        spread(norm.variables)
        arrays = array(), array(seed=1)
        results.append(
            value_and_gradients(norm, *arrays, FAST, mask=mask, training=True)
        )
    (output, to_x, to_weights), others = results
    assert_close(others[0], output)
    assert_close(others[1], to_x)
    for key, value in to_weights.items():
        assert_close(others[2][key], value)


@pytest.mark.parametrize(("name", "dtype"), [("frn", "bool"), ("bn", "int32")])
def test_integers_in_a_scope(name, dtype):
    x = array().astype(dtype)
    expected = fit(LAYERS[name](name="norm"), x=x)
    with scope_of("full"):
        norm = LAYERS[name](name="norm")
    for key, value in fit(norm, x=x).items():
        assert_close(value, expected[key], 1e-4)


class Block(keras.layers.Layer):
    """A norm in a layer of a user, rematerialized by hand or not."""

    def __init__(self, norm, how):
        super().__init__()
        self.norm, self.how = norm, how
        self.dense = keras.layers.Dense(6, kernel_initializer="orthogonal")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)

    def body(self, x):
        return self.norm(self.dense(x))

    def call(self, x):
        if self.how == "layer":
            return keras.remat(self.norm)(self.dense(x))
        return keras.remat(self.body)(x) if self.how == "body" else self.body(x)

    def compute_output_shape(self, shape):
        return shape


@functools.cache
def fit_block(name, run):
    return fit(LAYERS[name](), run, lambda norm: Block(norm, None))


@not_jax
@pytest.mark.parametrize(
    ("name", "how", "run"),
    [
        *itertools.product(
            ("frn", "bn", "eval_norm"), ("layer", "body"), [FAST]
        ),
        ("frn", "body", "eager"),
        ("bn", "layer", "eager"),
    ],
)
def test_remat_of_a_layer(name, how, run):
    expected = fit_block(name, run)
    results = fit(LAYERS[name](), run, lambda norm: Block(norm, how))
    for key, value in expected.items():
        assert_close(results[key], value, 1e-4)


@not_jax
@pytest.mark.parametrize("name", ["frn", "bn"])
def test_a_scope_inside_of_a_rematerialized_block(name):
    expected = fit(LAYERS[name](), wrap=lambda norm: Block(norm, None))
    with scope_of("full"):
        norm = LAYERS[name]()
    results = fit(norm, wrap=lambda norm: Block(norm, "body"))
    for key, value in expected.items():
        assert_close(results[key], value, 1e-4)


@not_jax
def test_remat_of_batch_renormalization_is_refused():
    with pytest.raises(ValueError, match="Create the layer in a `keras.Remat"):
        fit(LAYERS["bn_renorm"](), wrap=lambda norm: Block(norm, "layer"))


@only_tensorflow
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", ["frn", "bn", "eval_norm"])
def test_recompute_grad(name, graph):
    import tensorflow as tf

    x, upstream = array(), array(seed=1)
    results = []
    for remat in (lambda f: f, tf.recompute_grad):
        layer = LAYERS[name]()
        layer.build(SHAPE)
        spread(layer.variables)

        def run(x, layer=layer, remat=remat):
            weights = [v.value for v in layer.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = remat(lambda x: layer(x, training=True))(x)
                loss = tf.reduce_sum(output * upstream)
            return tape.gradient(loss, [x, *weights])

        run = tf.function(run, autograph=False) if graph else run
        gradients = run(tf.constant(x))
        results.append([*gradients, *layer.non_trainable_variables])
    for expected, result in zip(*results, strict=True):
        assert_close(result, to_numpy(expected), 1e-4)


@pytest.mark.skipif(BACKEND != "jax", reason="a transformation of JAX")
@pytest.mark.parametrize("name", ["frn", "bn", "bn_renorm", "eval_norm", "rbn"])
def test_checkpoint_of_a_stateless_call(name):
    import jax

    x, upstream = array(), array(seed=1)
    layer = LAYERS[name]()
    layer.build(SHAPE)
    spread(layer.variables)
    moving = [v.value for v in layer.non_trainable_variables]
    weights = [v.value for v in layer.trainable_variables]

    def call(weights, x):
        return layer.stateless_call(weights, moving, x, training=True)

    def loss(call, weights, x):
        output, state = call(weights, x)
        return (output * upstream).sum(), state

    expected, results = (
        jax.jit(jax.grad(lambda w, x, f=f: loss(f, w, x), (0, 1), True))(
            weights, x
        )
        for f in (call, jax.checkpoint(call))
    )
    for value, result in zip(
        *map(jax.tree.leaves, (expected, results)), strict=True
    ):
        assert_close(result, to_numpy(value), 1e-5)


@only_tensorflow
@pytest.mark.parametrize("name", ["bn"])
def test_a_scope_in_a_replica_model(name):
    import tensorflow as tf

    from keras_norm.training import ReplicaModel

    # 6 rows in batches of 4: the last one is padded.
    x, y = array((6, *SHAPE[1:])), array((6, 1), 1)
    results = []
    for mode in (None, "full"):
        devices = tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
        )
        with devices.scope():
            inputs = keras.Input(SHAPE[1:])
            with scope_of(mode):
                norm = LAYERS[name](name="norm")
            outputs = keras.layers.Flatten()(norm(inputs))
            model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
            spread(model.variables)
            trained = ReplicaModel(model)
            trained.compile(keras.optimizers.SGD(0.05), "mse")
        trained.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        results.append([v.value.numpy() for v in model.variables])
    for expected, result in zip(*results, strict=True):
        assert_close(result, expected, 1e-4)
