import keras
import numpy as np
import pytest

import keras_norm
from tests.numbers import assert_allclose
from tests.numbers import to_numpy

SHAPE = (2, 6, 6, 48)


def draw(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_the_names():
    expected = "bn sync_bn brn eval_norm gn in ln frn rbn none"
    assert keras_norm.names() == expected.split()


@pytest.mark.parametrize("name", keras_norm.names())
@pytest.mark.parametrize("axis", [-1, 1])
def test_every_norm_and_its_activation_build(name, axis):
    norm = keras_norm.get(name)
    shape = SHAPE if axis == -1 else (2, 48, 6, 6)
    x = keras.Input(shape[1:])
    y = norm.layer(x.shape, axis=axis, name="norm")(x)
    y = norm.activation(axis=axis, name="act")(y)
    model = keras.Model(x, y)
    output = model.predict(draw(shape), verbose=0)
    assert output.shape == shape
    assert np.isfinite(output).all()
    assert [layer.name for layer in model.layers[1:]] == ["norm", "act"]


def test_frn_comes_with_tlu_and_the_others_with_relu():
    for name in keras_norm.names():
        expected = "TLU" if name == "frn" else "ReLU"
        assert type(keras_norm.get(name).activation()).__name__ == expected


def test_frn_learns_epsilon_where_a_plane_has_one_value():
    frn = keras_norm.get("frn")
    for shape, learned in (
        ((None, 8), True),
        ((None, 1, 1, 8), True),
        ((None, 2, 1, 8), False),
        ((None, None, None, 8), False),
    ):
        assert frn.layer(shape).get_config()["learned_epsilon"] is learned


@pytest.mark.parametrize(
    ("channels", "groups"), [(64, 32), (16, 16), (48, 16), (7, 1)]
)
def test_gn_divides_the_channels(channels, groups):
    layer = keras_norm.get("gn").layer((None, 4, 4, channels))
    assert layer.groups == groups


def test_in_and_ln_normalize_what_they_say():
    x = draw() * 3.0 + 1.0
    by_plane = to_numpy(keras_norm.get("in").layer(SHAPE)(x))
    assert_allclose(by_plane.mean((1, 2)), 0.0, atol=1e-5)
    by_sample = to_numpy(keras_norm.get("ln").layer(SHAPE)(x))
    assert_allclose(by_sample.mean((1, 2, 3)), 0.0, atol=1e-5)


def test_in_of_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"shape=\(None, 8\)"):
        keras_norm.get("in").layer((None, 8))


def test_keyword_arguments_reach_every_layer():
    norm = keras_norm.get("rbn", momentum=0.5, epsilon=1e-2)
    layer = norm.layer(SHAPE, momentum=0.6)
    assert (layer.momentum, layer.epsilon) == (0.6, 1e-2)
    assert keras_norm.get("sync_bn").layer(SHAPE).synchronized


def test_a_callable_and_a_norm_are_taken_as_they_are():
    norm = keras_norm.get(keras.layers.BatchNormalization, momentum=0.8)
    assert norm.layer(SHAPE, axis=1).momentum == 0.8
    assert keras_norm.get(norm).layer(SHAPE).momentum == 0.8


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'sync_bn'.* frn, rbn"):
        keras_norm.get("syncbn")
