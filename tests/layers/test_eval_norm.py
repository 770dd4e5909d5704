import keras
import numpy as np
import pytest

from keras_norm import BatchNormalization
from keras_norm import EvalNorm
from tests import reference
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.backend_gradients import value_and_gradients
from tests.layers.members import weights_of

SHAPE = (3, 4, 5, 2)


def draw(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    levels = generator.normal(0.0, 1.0, (shape[0], 1, 1, shape[-1]))
    return (generator.normal(1.5, 2.0, shape) + levels).astype("float32")


def test_a_new_one_is_batch_normalization():
    ours, plain = EvalNorm(mix_learning_rate=0.0), BatchNormalization()
    for training in (True, True, False):
        assert_allclose(
            ours(draw(), training=training),
            plain(draw(), training=training),
            rtol=1e-6,
            atol=1e-6,
        )


def test_with_both_scalars_1_it_evaluates_as_instance_normalization():
    layer = EvalNorm(
        mean_mix_initializer="ones", variance_mix_initializer="ones"
    )
    x = draw()
    mean = x.mean((1, 2), keepdims=True)
    variance = x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-3)
    assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_a_sample_does_not_see_the_others_at_inference():
    layer = EvalNorm(
        mean_mix_initializer=keras.initializers.Constant(0.3),
        variance_mix_initializer=keras.initializers.Constant(0.6),
    )
    x = draw()
    alone = to_numpy(layer(x))
    x[1:] *= 100.0
    assert_array_equal(to_numpy(layer(x))[0], alone[0])


def difference(x, weights, a, b):
    """Mean squared difference that the scalars minimize."""
    mixed = {**weights, "mean_mix": a, "variance_mix": b}
    evaluated = reference.eval_norm(x, mixed, training=False)
    trained = reference.eval_norm(x, mixed, training=True)
    return np.mean((evaluated - trained) ** 2)


def test_a_step_goes_down_the_gradient_of_the_difference():
    layer = EvalNorm(
        mean_mix_initializer=keras.initializers.Constant(0.3),
        variance_mix_initializer=keras.initializers.Constant(0.4),
        mix_learning_rate=0.01,
        dtype="float64",
    )
    x = draw().astype("float64")
    layer(x, training=True)
    weights = weights_of(layer)
    weights.pop("gamma")
    weights.pop("beta")

    def loss(at):
        return difference(x, weights, at["a"], at["b"])

    start = {"a": np.array(0.3), "b": np.array(0.4)}
    gradients = reference.gradients(loss, start, 1.0)
    for name, key in (("mean_mix", "a"), ("variance_mix", "b")):
        step = (start[key] - weights[name]) / 0.01
        assert abs(step) > 1e-3
        assert_allclose(step, gradients[key], rtol=1e-5)


def test_masked_positions_do_not_affect_a_step():
    x = draw()
    mask = np.ones(SHAPE[:-1], bool)
    mask[:, 2:] = False
    masked, plain = EvalNorm(), EvalNorm()
    masked(np.where(mask[..., None], x, 1e3), mask=mask, training=True)
    plain(x[:, :2], training=True)
    for ours, theirs in zip(masked.weights, plain.weights, strict=True):
        assert_allclose(ours, to_numpy(theirs), rtol=1e-5)


def test_learning_brings_inference_nearer_to_training():
    # Batches of 2, samples with levels of their own: the case it is made for.
    layer = EvalNorm(momentum=0.9, mix_learning_rate=0.1)
    for step in range(200):
        layer(draw((2, 4, 5, 2), step), training=True)
    learned = weights_of(layer)
    assert 0.05 < learned["mean_mix"] < 1.0

    held_out = [draw((2, 4, 5, 2), 1000 + step) for step in range(50)]

    def mean_difference(a, b):
        return np.mean([difference(x, learned, a, b) for x in held_out])

    as_learned = mean_difference(learned["mean_mix"], learned["variance_mix"])
    assert as_learned < 0.8 * mean_difference(0.0, 0.0)


def test_the_scalars_stay_in_their_bounds():
    layer = EvalNorm(mix_learning_rate=1e6)
    for step in range(5):
        layer(draw(seed=step), training=True)
        for weight in (layer.mean_mix, layer.variance_mix):
            assert 0.0 <= to_numpy(weight) <= 1.0


def test_learning_the_scalars_does_not_touch_the_gradients():
    x, upstream = draw(), draw(seed=1)
    results = []
    for rate in (0.0, 0.5):
        layer = EvalNorm(mix_learning_rate=rate)
        layer.build(SHAPE)
        _, to_x, to_weights = value_and_gradients(
            layer, x, upstream, training=True
        )
        assert set(to_weights) == {"gamma", "beta"}
        assert not layer.losses
        results.append([to_x, to_weights["gamma"], to_weights["beta"]])
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


def test_a_batch_of_nothing_moves_nothing():
    layer = EvalNorm(mean_mix_initializer=keras.initializers.Constant(0.3))
    layer.build(SHAPE)
    before = weights_of(layer)
    layer(draw(), mask=np.zeros(SHAPE[:-1], bool), training=True)
    for name, value in weights_of(layer).items():
        assert_array_equal(value, before[name])


@pytest.mark.parametrize("rate", [-0.1, float("nan"), "fast"])
def test_a_bad_learning_rate_is_named(rate):
    with pytest.raises(ValueError, match=f"mix_learning_rate={rate!r}"):
        EvalNorm(mix_learning_rate=rate)
