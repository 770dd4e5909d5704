import keras
import numpy as np
import pytest

from keras_norm import RBN
from keras_norm import BatchNormalization
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.backend_gradients import value_and_gradients

needs_renorm_in_keras = pytest.mark.skipif(
    "renorm" not in keras.layers.BatchNormalization().get_config(),
    reason="Keras has it from 3.14 on",
)

SHAPES = [(6, 3), (4, 5, 3), (4, 5, 7, 3), (2, 3, 4, 5, 3)]


def draw(shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(1.5, 2.0, shape).astype("float32")


def without_calibration(**kwargs):
    return RBN(center_statistic=None, scale_statistic=None, **kwargs)


def assert_same(ours, theirs, shape, rtol=1e-5):
    """Same outputs, gradients and weights over three steps and inference."""
    ours.build(shape)
    theirs.build(shape)
    names = [v.name for v in theirs.variables]
    assert [v.name for v in ours.variables] == names
    values = [draw(v.shape, i) ** 2 for i, v in enumerate(theirs.variables)]
    ours.set_weights(values)
    theirs.set_weights(values)
    for step in range(3):
        x, upstream = draw(shape, step), draw(shape, 10 + step)
        training = step < 2
        for a, b in zip(
            _leaves(ours, x, upstream, training),
            _leaves(theirs, x, upstream, training),
            strict=True,
        ):
            assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())
        for a, b in zip(ours.variables, theirs.variables, strict=True):
            a, b = map(to_numpy, (a, b))
            assert_allclose(a, b, rtol=rtol)


def _leaves(layer, x, upstream, training):
    output, input_gradient, gradients = value_and_gradients(
        layer, x, upstream, training=training
    )
    return [output, input_gradient, *(gradients[k] for k in sorted(gradients))]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [BatchNormalization, without_calibration])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"center": False, "momentum": 0.5, "epsilon": 1e-5},
        {"scale": False},
        {"axis": 1},
    ],
)
def test_it_equals_keras_on_one_device(shape, make, kwargs):
    theirs = keras.layers.BatchNormalization(**kwargs)
    assert_same(make(**kwargs), theirs, shape)


@needs_renorm_in_keras
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "clipping", [None, {"rmax": 1.2, "rmin": 0.9, "dmax": 0.1}]
)
def test_renorm_equals_keras_on_one_device(shape, clipping):
    kwargs = {
        "renorm": True,
        "renorm_clipping": clipping,
        "renorm_momentum": 0.8,
        "momentum": 0.7,
    }
    theirs = keras.layers.BatchNormalization(**kwargs)
    assert_same(BatchNormalization(**kwargs), theirs, shape, rtol=5e-5)


@needs_renorm_in_keras
def test_its_arguments_are_those_of_keras():
    theirs = keras.layers.BatchNormalization().get_config()
    ours = BatchNormalization().get_config()
    assert ours.pop("variance_correction") is False
    assert set(ours) == set(theirs)
    for key in set(ours) - {"name"}:
        assert ours[key] == theirs[key], key


def test_weights_of_keras_load_into_it(tmp_path):
    def model(layer):
        return keras.Sequential([keras.Input((4, 4, 3)), layer])

    theirs = model(keras.layers.BatchNormalization())
    theirs.layers[0].set_weights([draw((3,), i) ** 2 for i in range(4)])
    theirs.save_weights(tmp_path / "bn.weights.h5")
    ours = model(BatchNormalization(name=theirs.layers[0].name))
    ours.load_weights(tmp_path / "bn.weights.h5")
    x = draw((2, 4, 4, 3))
    assert_allclose(
        ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize(
    "clipping", [{"rmaximum": 2}, {"rmax": 1, "rmin": 2}, {"dmax": -1}]
)
def test_a_bad_renorm_clipping_is_named(clipping):
    with pytest.raises(ValueError, match=str(clipping)):
        BatchNormalization(renorm=True, renorm_clipping=clipping)


def test_a_mask_of_nothing_moves_nothing():
    layer = BatchNormalization()
    x = draw((2, 5, 3))
    layer(x, mask=np.zeros((2, 5), bool), training=True)
    assert_array_equal(layer.moving_mean, np.zeros(3))
    assert_array_equal(layer.moving_variance, np.ones(3))


def test_a_mask_equals_a_batch_without_masked_positions():
    x = draw((4, 6, 3))
    mask = np.ones((4, 6), bool)
    mask[1, 2:] = False
    mask[3, :4] = False
    masked, plain = BatchNormalization(), BatchNormalization()
    output = to_numpy(masked(x, mask=mask, training=True))
    expected = plain(x[mask], training=True)
    assert_allclose(output[mask], expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(masked.weights, plain.weights, strict=True):
        a, b = map(to_numpy, (a, b))
        assert_allclose(a, b, rtol=1e-5)


def test_a_seeded_initializer_starts_renorm_at_the_moving_moments():
    layer = BatchNormalization(
        renorm=True,
        moving_mean_initializer=keras.initializers.RandomNormal(seed=3),
    )
    layer.build((None, 4))
    assert_array_equal(layer.moving_mean, layer.renorm_mean)


@pytest.mark.parametrize("renorm", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_variance_correction_stores_the_unbiased_variance(renorm, masked):
    layer = BatchNormalization(
        momentum=0.0, variance_correction=True, renorm=renorm
    )
    plain = BatchNormalization(momentum=0.0, renorm=renorm)
    x, mask = draw((5, 3, 2)), None
    values = x.reshape(-1, 2).astype("float64")
    if masked:
        mask = np.arange(3) < np.array([[1], [3], [2], [1], [1]])
        values = x[mask].astype("float64")
    y = layer(x, training=True, mask=mask)
    assert_array_equal(y, plain(x, training=True, mask=mask))
    expected = values.var(0, ddof=1)
    assert_allclose(layer.moving_variance, expected, rtol=1e-5)
    assert_allclose(plain.moving_variance, values.var(0), rtol=1e-5)
    assert_allclose(layer.moving_mean, values.mean(0), rtol=1e-5)
    if renorm:
        # The reference of training follows the variance of training.
        assert_array_equal(layer.renorm_stddev, plain.renorm_stddev)
    config = layer.get_config()
    assert config["variance_correction"] is True
    assert BatchNormalization.from_config(config).get_config() == config
    del config["variance_correction"]
    assert not BatchNormalization.from_config(config).variance_correction


def test_variance_correction_of_single_values_is_finite():
    layer = BatchNormalization(momentum=0.0, variance_correction=True)
    layer(draw((1, 4)), training=True)
    assert_array_equal(to_numpy(layer.moving_variance), np.zeros(4))


def test_variance_correction_is_a_boolean():
    with pytest.raises(ValueError, match="variance_correction='yes'"):
        BatchNormalization(variance_correction="yes")
