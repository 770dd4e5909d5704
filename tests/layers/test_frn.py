import keras
import numpy as np
import pytest

from keras_norm import FRN
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy

SHAPE = (3, 5, 7, 4)


def draw(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.5, 2.0, shape).astype("float32")


@pytest.mark.parametrize("learned_epsilon", [False, True, "channel"])
def test_a_sample_does_not_see_the_others(learned_epsilon):
    layer = FRN(learned_epsilon=learned_epsilon)
    x = draw()
    alone = to_numpy(layer(x))
    x[1:] = draw(seed=1)[1:] * 100.0
    among_others = to_numpy(layer(x))
    assert_array_equal(among_others[0], alone[0])
    assert np.abs(among_others[1:] - alone[1:]).max() > 0.1


def test_training_and_inference_are_the_same_function():
    layer = FRN()
    assert_array_equal(
        layer(draw(), training=True), layer(draw(), training=False)
    )


def test_the_scale_of_the_input_does_not_matter_without_epsilon():
    layer = FRN(epsilon=0.0)
    assert_allclose(layer(draw() * 8.0), layer(draw()), rtol=1e-6)


def test_the_mean_is_not_subtracted():
    x = np.full((1, 4, 4, 1), 3.0, "float32")
    assert_allclose(FRN()(x), np.ones_like(x), rtol=1e-6)


def test_a_plane_of_zeros_gives_beta():
    layer = FRN(beta_initializer=keras.initializers.Constant(0.25))
    x = np.zeros(SHAPE, "float32")
    assert_array_equal(layer(x), np.full(SHAPE, 0.25, "float32"))


def test_tiny_values_stay_finite():
    x = np.full(SHAPE, 1e-30, "float32")
    assert_allclose(FRN()(x), np.full(SHAPE, 1e-27), rtol=1e-5)


def test_start_values():
    layer = FRN(learned_epsilon="channel")
    layer.build(SHAPE)
    values = {v.name: to_numpy(v).tolist() for v in layer.weights}
    assert values == {
        "gamma": [1.0] * 4,
        "beta": [0.0] * 4,
        "learned_epsilon": [pytest.approx(1e-4)] * 4,
    }
    scalar = FRN(learned_epsilon=True)
    scalar.build(SHAPE)
    assert scalar.learned_epsilon.shape == ()


def test_a_negative_learned_epsilon_cannot_reach_zero():
    start = keras.initializers.Constant(-1e-4)
    negative = FRN(learned_epsilon=True, learned_epsilon_initializer=start)
    assert_array_equal(negative(draw()), FRN(learned_epsilon=True)(draw()))


def test_rank_2_needs_a_learned_epsilon():
    with pytest.raises(ValueError, match="learned_epsilon=True.*Received"):
        FRN()(draw((3, 4)))
    x = draw((3, 4)) * 1e-2
    expected = x / np.sqrt(x.astype("float64") ** 2 + 1e-6 + 1e-4)
    output = FRN(learned_epsilon=True)(x)
    assert_allclose(output, expected, rtol=1e-5)


def test_static_1x1_maps_warn():
    with pytest.warns(UserWarning, match="learned_epsilon=True"):
        FRN(name="tail")(draw((3, 1, 1, 4)))
    FRN(learned_epsilon=True)(draw((3, 1, 1, 4)))
    FRN().build((None, None, None, 4))


@pytest.mark.parametrize(
    ("shape", "axis", "learned"),
    [
        ((None, 4), -1, True),
        ((None, 1, 1, 4), -1, True),
        ((None, 4, 1, 1), 1, True),
        ((None, 2, 1, 4), -1, False),
        ((None, None, None, 4), -1, False),
        ((None, 1, None, 4), -1, False),
    ],
)
def test_auto_learns_a_scalar_if_a_plane_has_one_value(shape, axis, learned):
    layer = FRN(axis=axis, learned_epsilon="auto")
    config = layer.get_config()
    assert config["learned_epsilon"] == "auto"
    layer.build(shape)
    assert layer.get_config() == config
    plain = FRN(axis=axis, learned_epsilon=learned)
    plain.build(shape)
    expected = [(v.name, tuple(v.shape)) for v in plain.weights]
    assert [(v.name, tuple(v.shape)) for v in layer.weights] == expected
    assert ("learned_epsilon" in {v.name for v in layer.weights}) == learned
    x = draw(tuple(size or 3 for size in shape))
    assert_array_equal(layer(x), plain(x))


def test_rank_6_is_refused():
    with pytest.raises(ValueError, match="rank 2 to 5"):
        FRN()(draw((1, 1, 2, 2, 2, 3)))


def test_an_unknown_kind_of_learned_epsilon_is_named():
    with pytest.raises(ValueError, match="learned_epsilon='plane'"):
        FRN(learned_epsilon="plane")
