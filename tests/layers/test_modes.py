"""Eager, graph and compiled agree; derivatives of derivatives; repeats."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_norm import FRN
from keras_norm import RBN
from tests.assertions import assert_close
from tests.backend_gradients import MODES
from tests.backend_gradients import gradient_of_gradient
from tests.backend_gradients import value_and_gradients
from tests.layers.members import MEMBERS
from tests.layers.members import each_member_and_mode
from tests.layers.members import weights_of

ROOT = pathlib.Path(__file__).parent.parent.parent
SHAPE = (2, 5, 7, 3)
# Compiling takes a second, and others compile the same functions.
SIMILAR = (
    "frn",
    "frn_no_affine",
    "lfrn",
    "gfrn_centered",
    "tlu",
    "tlu_capped",
    "rbn_std",
    "rbn_function",
    "rbn_center_only",
    "rbn_scale_only",
)

only_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="a transformation of JAX"
)


def draw(shape=SHAPE, seed=0, dtype="float32"):
    generator = np.random.default_rng(seed)
    return generator.normal(0.7, 1.3, shape).astype(dtype)


@pytest.mark.skipif(len(MODES) == 1, reason="one mode is there")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in SIMILAR else ())
        for name in MEMBERS
    ],
)
def test_jit_eager_and_graph_agree(name):
    member = MEMBERS[name]
    # Longer than one block of the sums, and not a multiple of it.
    x, upstream = draw((2, 17, 3, 3)), draw((2, 17, 3, 3), 2)
    results = {}
    for mode in MODES:
        layer = member.build(x.shape)
        leaves = value_and_gradients(layer, x, upstream, mode, training=True)
        results[mode] = *leaves, weights_of(layer)
    output, to_x, to_weights, after = results.pop("eager")
    for others in results.values():
        assert_close(others[0], output)
        assert_close(others[1], to_x)
        for key, value in to_weights.items():
            assert_close(others[2][key], value)
        if keras.backend.backend() == "tensorflow":
            for key, value in after.items():
                assert_close(others[3][key], value)


@each_member_and_mode
def test_second_derivatives(name, training):
    member = MEMBERS[name]
    layer = member.build(SHAPE, dtype="float64")
    moving = [(v, keras.ops.convert_to_numpy(v)) for v in layer.variables]
    x, upstream, direction = (draw(seed=i, dtype="float64") for i in range(3))

    def gradient(x):
        for weight, value in moving:
            weight.assign(value)
        return value_and_gradients(layer, x, upstream, training=training)[1]

    result = gradient_of_gradient(
        layer, x, upstream, direction, training=training
    )
    along = draw(seed=3, dtype="float64")
    step = 1e-6
    change = gradient(x + step * along) - gradient(x - step * along)
    expected = np.sum(direction * change) / (2.0 * step)
    scale = np.abs(result).max() * np.sqrt(x.size)
    np.testing.assert_allclose(
        np.sum(result * along), expected, rtol=1e-5, atol=1e-6 * scale
    )
    is_linear = name == "frozen" or (not training and "bn" in name)
    if member.normalizes and not is_linear:
        assert scale > 1e-3


@pytest.mark.skipif(len(MODES) == 1, reason="one mode is there")
@pytest.mark.parametrize("name", ["frn_tlu", "rbn"])
def test_second_derivatives_agree_when_compiled(name):
    layer = MEMBERS[name].build(SHAPE, dtype="float64")
    arrays = [draw(seed=i, dtype="float64") for i in range(3)]
    eager, compiled = (
        gradient_of_gradient(layer, *arrays, mode, training=True)
        for mode in ("eager", "xla")
    )
    assert_close(compiled, eager)


@only_jax
@pytest.mark.parametrize("kwargs", [{}, {"activation": "tlu"}])
def test_vmap_gives_the_gradients_of_single_samples(kwargs):
    import jax

    layer = FRN(**kwargs)
    layer.build((None, *SHAPE[1:]))
    weights = [v.value for v in layer.trainable_variables]

    def loss(weights, x):
        output, _ = layer.stateless_call(weights, [], x[None])
        return (output**2).sum()

    x = draw()
    together = jax.vmap(jax.grad(loss), (None, 0))(weights, x)
    for i in range(len(x)):
        alone = jax.grad(loss)(weights, x[i])
        for a, b in zip(together, alone, strict=True):
            assert_close(a[i], b)


@only_jax
def test_forward_mode_is_refused():
    import jax

    layer = FRN()
    layer.build(SHAPE)
    weights = [v.value for v in layer.trainable_variables]

    def run(x):
        return layer.stateless_call(weights, [], x)[0]

    x = jax.numpy.asarray(draw())
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(run, (x,), (x,))


@pytest.mark.parametrize("mode", MODES)
def test_a_threshold_above_nothing_learns_exactly_nothing(mode):
    # The gradient of tau is a difference of sums that must not leave dust.
    x, upstream = draw((2, 17, 9, 3)), draw((2, 17, 9, 3), 2)
    for start, idle in ((-100.0, "tau"), (100.0, "beta")):
        layer = FRN(
            activation="tlu",
            tau_initializer=keras.initializers.Constant(start),
        )
        layer.build(x.shape)
        *_, gradients = value_and_gradients(layer, x, upstream, mode)
        np.testing.assert_array_equal(gradients[idle], np.zeros(3))


@pytest.mark.parametrize("mode", MODES)
def test_repeats_are_bit_identical(mode):
    for cls in (FRN, RBN):
        runs = []
        for _ in range(2):
            layer = cls()
            layer.build(SHAPE)
            output, to_x, to_weights = value_and_gradients(
                layer, draw(), draw(seed=1), mode, training=True
            )
            runs.append([output, to_x, *to_weights.values()])
        for a, b in zip(*runs, strict=True):
            np.testing.assert_array_equal(a, b)


PROGRAM = """
import hashlib
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
import numpy as np
from tests.backend_gradients import value_and_gradients
from tests.layers.members import MEMBERS
digest = hashlib.sha256()
x, u = np.random.default_rng(0).normal(size=(2, 4, 9, 5, 3)).astype("float32")
for member in MEMBERS.values():
    for mode in ("eager", "graph"):
        layer = member.build(x.shape)
        y, g, w = value_and_gradients(layer, x, u, mode, training=True)
        for array in (y, g, *w.values()):
            digest.update(array.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a mode of TensorFlow"
)
@pytest.mark.long
def test_every_operation_has_a_deterministic_form():
    digests = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert digests[0] == digests[1] != ""
