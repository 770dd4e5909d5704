"""`convert(..., distill_steps=...)`: training towards the original model."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.calibration import annealing
from keras_norm.calibration.output_loss import OutputLoss
from tests.calibration.digits import accuracy
from tests.calibration.digits import examples
from tests.calibration.digits import predict
from tests.calibration.digits import relative_error


def test_distillation_comes_closer_and_ends_as_the_papers_frn(trained):
    model, data, test = trained
    before, _ = keras_norm.convert(model, "frn", data=data)
    after, report = keras_norm.convert(
        model, "frn", data=data, distill_steps=120, distill_batch_size=16
    )
    layer = after.get_layer("norm_1")
    assert layer.learned_epsilon is None and layer.epsilon == 1e-6
    error = relative_error(model, after, test[0])
    assert error < relative_error(model, before, test[0])
    assert accuracy(after, test) > 0.93 * accuracy(model, test)
    result = report.calibration.distillation
    assert (result.steps, result.batch_size) == (120, 16)
    # Epsilon is final in the last two fifths.
    assert 72 < result.best_step <= 120
    assert f"best after {result.best_step}" in str(report)


def test_other_norms_never_get_worse_on_held_out_examples(trained):
    model, data, _ = trained
    _, report = keras_norm.convert(model, "ln", data=data, distill_steps=20)
    result = report.calibration.distillation
    assert result.loss_after <= result.loss_before
    assert "distilled 20 steps of 32" in str(report)


def test_learned_epsilon_ends_at_the_ratio(trained):
    model, data, _ = trained
    converted, report = keras_norm.convert(
        model, "frn", data=data, epsilon_ratio=0.1, distill_steps=5
    )
    fixed, _ = keras_norm.convert(
        model, "frn", data=data, epsilon_ratio=0.1, refit="affine"
    )
    first, second = (
        keras.ops.convert_to_numpy(m.get_layer("norm_1").learned_epsilon)
        for m in (converted, fixed)
    )
    np.testing.assert_allclose(first, second, rtol=1e-3)
    assert converted.get_layer("norm_1").learned_epsilon.trainable


def test_single_values_keep_their_large_epsilon():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(name="maps"),
            layers.ReLU(),
            layers.GlobalMaxPooling2D(),
            layers.BatchNormalization(name="values"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    data = examples((6, 6, 2))
    model, _ = keras_norm.recalibrate(model, data)
    converted, report = keras_norm.convert(
        model, "frn", data=data, distill_steps=10
    )
    assert converted.get_layer("maps").learned_epsilon is None
    assert converted.get_layer("values").learned_epsilon is not None
    # The loss of the trained model, measured again on the returned one.
    loss = OutputLoss(model, [data[:80].astype("float32")])
    found = loss.compute(converted, [data.astype("float32")])
    wanted = loss.compute(model, [data.astype("float32")])
    error = float(loss(wanted, found))
    assert error < 2 * report.calibration.distillation.loss_after + 1e-3


def test_logits_are_compared_behind_softmax_and_sigmoid():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs,
        [
            layers.Softmax()(inputs),
            layers.Activation("sigmoid")(inputs),
            layers.Activation("linear")(inputs),
        ],
    )
    nested = keras.Model(inputs, model(inputs))
    for each in (model, nested):
        found = OutputLoss(each, [x]).targets
        np.testing.assert_allclose(
            found[0], x - x.mean(axis=1, keepdims=True), atol=1e-5
        )
        np.testing.assert_allclose(found[1], x, atol=1e-5)
        np.testing.assert_array_equal(found[2], x)


def test_loss_is_relative_to_the_variance():
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 4)).astype("f4")
    inputs = keras.Input((4,))
    loss = OutputLoss(keras.Model(inputs, layers.Identity()(inputs)), [x])
    expected = 0.25 / x.astype("float64").var(axis=0).mean()
    np.testing.assert_allclose(
        float(loss([x], [x + np.float32(0.5)])), expected, rtol=1e-4
    )


def test_epsilon_falls_while_the_scale_of_a_channel_stays():
    layer = keras_norm.FRN(learned_epsilon="channel")
    x = np.random.default_rng(0).normal(size=(1, 64, 3)).astype("float32")
    layer.build(x.shape)
    mean_square = np.mean(x.astype("float64") ** 2, axis=(0, 1))
    annealing.assign_epsilon(layer, mean_square)
    schedule = annealing.EpsilonSchedule(
        [annealing.AnnealedLayer(layer, mean_square, 0.0)]
    )
    before, epsilons = predict(layer, x), []
    for progress in (0.0, 0.3, 0.59, 0.6, 1.0):
        assert schedule.set_progress(progress) == (progress >= 0.6)
        np.testing.assert_allclose(predict(layer, x), before, rtol=1e-4)
        epsilons.append(keras.ops.convert_to_numpy(layer.learned_epsilon)[0])
    assert epsilons == sorted(epsilons, reverse=True)
    np.testing.assert_allclose(epsilons[1] / mean_square[0], 0.0316, rtol=0.01)
    assert epsilons[-1] == np.float32(annealing.SMALLEST)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distill_steps": -1}, "distill_steps=-1"),
        ({"distill_steps": 2.5}, "distill_steps=2.5"),
        ({"distill_steps": 5, "distill_batch_size": 0}, "distill_batch_size=0"),
    ],
)
def test_invalid_arguments(trained, options, words):
    model, data, _ = trained
    with pytest.raises(keras_norm.ConversionError, match=words):
        keras_norm.convert(model, "ln", data=data, **options)


def test_arguments_about_data_need_data(trained):
    model, _, _ = trained
    for options in (
        {"refit": "next"},
        {"epsilon_ratio": 1.0},
        {"distill_steps": 5},
    ):
        (name,) = options
        with pytest.raises(keras_norm.ConversionError, match=f"`{name}` needs"):
            keras_norm.convert(model, "frn", **options)
