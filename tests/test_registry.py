import keras
import numpy as np
import pytest

import keras_norm
import keras_norm_cli
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy

SHAPE = (2, 6, 6, 48)


def draw(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_published_names_remain():
    published = "bn sync_bn brn eval_norm gn in ln frn rbn frozen none"
    assert set(published.split()) <= set(keras_norm.names())


def test_programs_list_the_names_of_the_registry():
    assert keras_norm_cli.norm_names() == keras_norm.names()


@pytest.mark.parametrize("name", keras_norm.names())
@pytest.mark.parametrize("axis", [-1, 1])
def test_every_norm_and_its_activation_build(name, axis):
    norm = keras_norm.get(name)
    shape = SHAPE if axis == -1 else (2, 48, 6, 6)
    x = keras.Input(shape[1:])
    y = norm.layer(axis=axis, name="norm")(x)
    y = norm.activation(axis=axis, name="act")(y)
    model = keras.Model(x, y)
    output = model.predict(draw(shape), verbose=0)
    assert output.shape == shape
    assert np.isfinite(output).all()
    assert [layer.name for layer in model.layers[1:]] == ["norm", "act"]


def test_frn_comes_with_tlu_and_the_others_with_relu():
    for name in keras_norm.names():
        norm = keras_norm.get(name)
        expected = "TLU" if name == "frn" else "ReLU"
        assert type(norm.activation()).__name__ == expected
        assert norm.has_own_activation is (name == "frn")
        assert keras_norm.get(norm, name="x").has_own_activation is (
            norm.has_own_activation
        )
    assert not keras_norm.get(keras_norm.FRN).has_own_activation


@pytest.mark.parametrize("norm", ["bn", "frn"])
@pytest.mark.parametrize("name", ["relu", "tlu"])
def test_the_activation_can_be_another(norm, name):
    before = keras_norm.get(norm, epsilon=1e-2)
    after = before.with_activation(name)
    assert after.name == norm
    ours, theirs = (n.layer(name="norm").get_config() for n in (after, before))
    assert ours == theirs and ours["epsilon"] == 1e-2
    layer = after.activation(name="act")
    assert type(layer).__name__ == {"relu": "ReLU", "tlu": "TLU"}[name]
    assert layer.name == "act"
    assert after.has_own_activation is (name == "tlu")
    # The one that it was made from stays what it is.
    assert before.has_own_activation is (norm == "frn")


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="relu, tlu. Received: name='gelu'"):
        keras_norm.get("bn").with_activation("gelu")


def test_frn_learns_epsilon_if_a_plane_has_one_value():
    for shape, learned in (
        ((None, 8), True),
        ((None, 1, 1, 8), True),
        ((None, 2, 1, 8), False),
        ((None, None, None, 8), False),
    ):
        layer = keras_norm.get("frn").layer()
        layer.build(shape)
        assert (layer.learned_epsilon is not None) is learned


@pytest.mark.parametrize(
    ("channels", "groups"), [(128, 32), (16, 4), (48, 12), (7, 1)]
)
def test_gn_divides_the_channels(channels, groups):
    x = draw((2, 4, 4, channels))
    output = keras_norm.get("gn").layer()(x)
    expected = keras_norm.get("gn", groups=groups).layer()(x)
    assert_array_equal(output, expected)


def test_groups_must_divide_the_channels():
    layer = keras_norm.get("gn", groups=32).layer()
    with pytest.raises(ValueError, match="as 24 and 48 would"):
        layer(draw())


def test_in_and_ln_normalize_planes_and_examples():
    x = draw() * 3.0 + 1.0
    by_plane = to_numpy(keras_norm.get("in").layer()(x))
    assert_allclose(by_plane.mean((1, 2)), 0.0, atol=1e-5)
    by_sample = to_numpy(keras_norm.get("ln").layer()(x))
    assert_allclose(by_sample.mean((1, 2, 3)), 0.0, atol=1e-5)
    assert np.abs(by_sample.mean((1, 2))).max() > 0.1


@pytest.mark.parametrize("name", ["in", "ln"])
def test_the_groups_of_in_and_ln_are_theirs(name):
    with pytest.raises(TypeError, match="groups"):
        keras_norm.get(name, groups=2).layer()


def test_in_of_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"input_shape=\(None, 8\)"):
        keras_norm.get("in").layer().build((None, 8))


def test_frozen_takes_the_weights_of_bn():
    bn, frozen = (keras_norm.get(n).layer() for n in ("bn", "frozen"))
    bn(draw(), training=True)
    frozen.build(SHAPE)
    frozen.set_weights(bn.get_weights())
    assert_array_equal(frozen(draw(), training=True), bn(draw()))


def test_keyword_arguments_reach_every_layer():
    norm = keras_norm.get("rbn", momentum=0.5, epsilon=1e-2)
    layer = norm.layer(momentum=0.6)
    assert (layer.momentum, layer.epsilon) == (0.6, 1e-2)
    assert keras_norm.get("sync_bn").layer().synchronized


def test_a_callable_and_a_norm_are_taken_as_they_are():
    norm = keras_norm.get(keras.layers.BatchNormalization, momentum=0.8)
    assert norm.layer(axis=1).momentum == 0.8
    assert keras_norm.get(norm).layer().momentum == 0.8


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'sync_bn'.* frn, rbn"):
        keras_norm.get("syncbn")
