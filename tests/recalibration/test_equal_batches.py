"""Statistics do not depend on how the data is batched, to the last bit."""

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.data.batches import make_batches
from keras_norm.graphs.program import Program
from keras_norm.recalibration import equal_batches
from keras_norm.recalibration.equal_batches import EqualBatches

LAYERS = keras.layers
BATCH_SIZES = (1, 7, 64)


def two_inputs(**options):
    inputs = {
        "a": keras.Input((None, 3), name="a", **options),
        "b": keras.Input((2,), name="b", **options),
    }
    norms = [LAYERS.BatchNormalization(name=f"norm_{n}") for n in "ab"]
    outputs = [n(x) for n, x in zip(norms, inputs.values(), strict=True)]
    return keras.Model(inputs, outputs)


def equal(model, data, batch_size=None):
    program = Program(model)
    batches = make_batches(model, data, batch_size)
    return EqualBatches(batches, program, program.steps)


def draw(number, length=5):
    generator = np.random.default_rng(number)
    return {
        "a": generator.normal(size=(number, length, 3)),
        "b": generator.normal(size=(number, 2)),
    }


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batches_have_the_same_examples_in_order(batch_size):
    data = draw(70)
    batches = equal(two_inputs(), data, batch_size)
    found = list(batches)
    assert [len(a) for a, _ in found] == [32, 32, 6]
    assert batches.num_batches == 3 and batches.num_examples == 70
    for name, column in zip("ab", zip(*found, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(column), data[name])


def test_examples_of_other_shapes_are_not_joined():
    data = [draw(3), draw(4), draw(40, 9), draw(1, 9), draw(2)]
    found = list(equal(two_inputs(), iter(data)))
    shapes = [a.shape[:2] for a, _ in found]
    assert shapes == [(7, 5), (32, 9), (9, 9), (2, 5)]
    expected = np.concatenate([data[2]["b"], data[3]["b"]])
    np.testing.assert_array_equal(found[1][1], expected[:32])
    np.testing.assert_array_equal(found[2][1], expected[32:])


def test_fixed_batch_size_of_the_model():
    model = two_inputs(batch_size=4)
    assert [len(a) for a, _ in equal(model, draw(12), 6)] == [4, 4, 4]


def test_layer_that_fails_on_a_batch_is_named():
    inputs = keras.Input(batch_shape=(4, 3, 2))
    x = LAYERS.LSTM(2, stateful=True, name="memory")(inputs)
    model = keras.Model(inputs, LAYERS.BatchNormalization()(x))
    keras_norm.recalibrate(model, np.ones((8, 3, 2)))
    with pytest.raises(
        keras_norm.ConversionError, match=r"'memory', a LSTM.*\(2, 3, 2\)"
    ) as error:
        keras_norm.recalibrate(model, np.ones((6, 3, 2)))
    assert "\n" not in str(error.value)


def test_batches_stay_if_activations_are_large(monkeypatch):
    # An example needs about 200 bytes.
    for limit, expected in ((3_000, [6, 6]), (30_000, [12])):
        monkeypatch.setattr(equal_batches, "MAX_BYTES", limit)
        found = [len(a) for a, _ in equal(two_inputs(), draw(12), 6)]
        assert found == expected


def test_optional_input_that_is_missing():
    a = keras.Input((3,), name="a")
    b = keras.Input((3,), name="b", optional=True)
    outputs = [LAYERS.BatchNormalization()(a), LAYERS.Identity()(b)]
    found = list(equal(keras.Model([a, b], outputs), [np.ones((9, 3)), None]))
    assert len(found) == 1 and found[0][1] is None


@keras.saving.register_keras_serializable(package="test_equal_batches")
class Rounding(LAYERS.Layer):
    """Depends on the number of examples, as rounding does."""

    def call(self, x):
        return x + keras.ops.cast(keras.ops.shape(x)[0], x.dtype)


def test_network_runs_on_the_same_batches_whatever_the_data(monkeypatch):
    norm = LAYERS.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), Rounding(), norm])
    x = np.random.default_rng(0).normal(size=(64, 3))

    def mean(data, batch_size=None):
        new, _ = keras_norm.recalibrate(model, data, batch_size=batch_size)
        return keras.ops.convert_to_numpy(new.layers[-1].moving_mean)

    expected = mean(x)
    np.testing.assert_allclose(expected, 32 + x.mean(0), rtol=1e-6)
    for batch_size in BATCH_SIZES:
        np.testing.assert_array_equal(mean(x, batch_size), expected)
    batches = [x[:5], x[5:6], x[6:50], x[50:]]
    np.testing.assert_array_equal(mean(batches), expected)
    monkeypatch.setattr(equal_batches, "MAX_BYTES", 0)
    np.testing.assert_allclose(mean(x, 1), 1 + x.mean(0), rtol=1e-6)
