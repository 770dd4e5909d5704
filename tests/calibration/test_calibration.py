"""`convert(..., data=...)`: the converted model approximates the original."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.calibration.digits import accuracy
from tests.calibration.digits import examples
from tests.calibration.digits import predict
from tests.calibration.digits import relative_error


def randomize(model):
    """Gives batch normalization weights as after training, from its inputs."""
    rng = np.random.default_rng(1)
    for layer in keras_norm.analysis._walk(model, "", {}).values():
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape[0]
            layer.gamma.assign(rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.3, size))
    return model


def test_each_step_of_refit_comes_closer(trained):
    model, data, test = trained
    errors = []
    for refit in ("none", "affine", "next", "all"):
        converted, report = keras_norm.convert(
            model, "frn", data=data, refit=refit
        )
        errors.append(relative_error(model, converted, test[0]))
        assert report.calibration.refit == refit
        assert report.calibration.num_fitted == 224
        assert report.calibration.num_held_out == 32
    assert sorted(errors, reverse=True) == errors
    assert errors[0] > 2 * errors[1] > 4 * errors[3]


@pytest.mark.parametrize("norm", ["frn", "gn", "in", "ln"])
def test_accuracy_is_kept_without_labels(trained, norm):
    model, data, test = trained
    options = {"groups": 4} if norm == "gn" else {}
    copied, _ = keras_norm.convert(model, norm, **options)
    converted, report = keras_norm.convert(model, norm, data=data, **options)
    expected = accuracy(model, test)
    # An instance norm before global pooling erases what the head reads.
    kept = 0.2 if norm == "in" else 0.9
    assert accuracy(copied, test) < 0.5 * expected
    assert accuracy(converted, test) > kept * expected
    (agreement,) = report.calibration.agreements
    assert f"{agreement.same_class:.1%} same class" in str(report)
    json.loads(report.to_json())
    for fit in report.calibration.layers:
        assert fit.explained_after >= fit.explained_before - 1e-9


def test_original_model_keeps_its_weights(trained):
    model, data, _ = trained
    before = model.get_weights()
    keras_norm.convert(model, "gn", data=data)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_gamma_and_beta_of_the_first_norm_are_those_of_least_squares(trained):
    model, data, _ = trained
    converted, report = keras_norm.convert(
        model, "frn", data=data, refit="affine"
    )
    order = np.random.default_rng(0).permutation(256)[32:]
    tap = [model.get_layer("norm_1").input, model.get_layer("norm_1").output]
    x, t = predict(keras.Model(model.input, tap), data[order])
    x, t = x.astype("float64"), t.astype("float64")
    z = x / np.sqrt(np.mean(x**2, axis=(1, 2), keepdims=True) + 1e-6)
    layer = converted.get_layer("norm_1")
    for i in range(16):
        matrix = np.stack([z[..., i].ravel(), np.ones(z[..., i].size)], 1)
        gamma, beta = np.linalg.lstsq(matrix, t[..., i].ravel(), rcond=None)[0]
        np.testing.assert_allclose(layer.get_weights()[0][i], gamma, rtol=1e-4)
        np.testing.assert_allclose(
            layer.get_weights()[1][i], beta, rtol=1e-3, atol=1e-5
        )
    assert [fit.path for fit in report.calibration.layers] == [
        "norm_1",
        "norm_2",
        "norm_3",
        "norm_4",
    ]


def test_large_epsilon_ratio_keeps_the_function(trained):
    model, data, _ = trained
    converted, report = keras_norm.convert(
        model, "frn", data=data, epsilon_ratio=1e4, refit="affine"
    )
    assert relative_error(model, converted, data) < 1e-4
    layer = converted.get_layer("norm_1")
    x = keras.Model(model.input, model.get_layer("norm_1").input)
    x = x.predict(
        data[np.random.default_rng(0).permutation(256)[32:]], verbose=0
    )
    square = np.mean(x.astype("float64") ** 2, axis=(0, 1, 2))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer.learned_epsilon),
        1e4 * square,
        rtol=1e-4,
    )
    assert {fit.epsilon_ratio for fit in report.calibration.layers} == {1e4}


def test_epsilon_ratio_of_a_norm_object_and_of_other_norms(trained):
    model, data, _ = trained
    converted, report = keras_norm.convert(
        model,
        keras_norm.get("frn"),
        data=data[:32],
        epsilon_ratio=2.0,
        refit="affine",
    )
    assert converted.get_layer("norm_1").learned_epsilon is not None
    assert {fit.epsilon_ratio for fit in report.calibration.layers} == {2.0}
    with pytest.raises(keras_norm.ConversionError, match="norm 'frn'.*'gn'"):
        keras_norm.convert(model, "gn", data=data, epsilon_ratio=2.0)


def test_equivalent_norm_is_left_as_it_is(trained):
    model, data, _ = trained
    converted, report = keras_norm.convert(model, "rbn", data=data)
    assert report.calibration.layers == []
    assert relative_error(model, converted, data) < 1e-9


def test_shared_norm_is_fitted_to_all_of_its_calls():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((6, 2)), keras.Input((6, 2))
    norm = layers.BatchNormalization(name="norm")
    outputs = [layers.Flatten()(norm(a)), layers.Flatten()(norm(b))]
    model = randomize(keras.Model([a, b], outputs))
    x = [examples((6, 2)), 3.0 + examples((6, 2))]
    model, _ = keras_norm.recalibrate(model, x)
    converted, report = keras_norm.convert(model, "frn", data=x)
    order = np.random.default_rng(0).permutation(96)[12:]
    values = np.stack([each[order] for each in x]).astype("float32")
    values = values.astype("float64")
    z = values / np.sqrt(np.mean(values**2, axis=2, keepdims=True) + 1e-6)
    t = np.stack([each[order] for each in predict(model, x)])
    t = t.reshape(z.shape)
    matrix = np.stack([z[..., 0].ravel(), np.ones(z[..., 0].size)], 1)
    expected = np.linalg.lstsq(matrix, t[..., 0].ravel(), rcond=None)[0]
    found = [w[0] for w in converted.get_layer("norm").get_weights()]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(report.calibration.layers) == 1


def test_masked_positions_do_not_count():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 2))
    x = layers.Masking()(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    model = randomize(keras.Model(inputs, x))
    data = examples((6, 2))
    data[:, 4:] = 0.0
    model, _ = keras_norm.recalibrate(model, data)
    converted, _ = keras_norm.convert(model, "frn", data=data)
    short, _ = keras_norm.convert(
        model_of_length(model, 4), "frn", data=data[:, :4]
    )
    np.testing.assert_allclose(
        converted.get_layer("norm").get_weights(),
        short.get_layer("norm").get_weights(),
        rtol=1e-4,
    )


def model_of_length(model, length):
    inputs = keras.Input((length, 2))
    norm = layers.BatchNormalization(name="norm")
    new = keras.Model(inputs, norm(inputs))
    norm.set_weights(model.get_layer("norm").get_weights())
    return new


def test_nested_and_sequential_models_with_several_outputs():
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.Conv1D(8, 3),
            layers.BatchNormalization(name="inner"),
            layers.ReLU(),
        ],
        name="encoder",
    )
    inputs = keras.Input((12, 3), name="signal")
    x = encoder(inputs)
    pooled = layers.GlobalAveragePooling1D()(x)
    outputs = {
        "label": layers.Dense(4, activation="softmax")(pooled),
        "level": layers.Dense(1)(pooled),
    }
    model = randomize(keras.Model({"signal": inputs}, outputs))
    data = {"signal": examples((12, 3)).tolist()}
    data = {"signal": np.asarray(data["signal"])}
    model, _ = keras_norm.recalibrate(model, data)
    converted, report = keras_norm.convert(model, "gn", groups=2, data=data)
    by_class = [a.same_class is None for a in report.calibration.agreements]
    assert sorted(by_class) == [False, True]
    expected, got = (predict(m, data) for m in (model, converted))
    for name in outputs:
        error = np.mean((expected[name] - got[name]) ** 2)
        assert error < 0.3 * expected[name].var()
    assert report.calibration.layers[0].path == "encoder/inner"


def test_frn_of_single_values_gets_a_large_epsilon():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(8),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(3),
        ]
    )
    data = examples((5,))
    model, _ = keras_norm.recalibrate(randomize(model), data)
    converted, report = keras_norm.convert(model, "frn", data=data)
    assert report.calibration.layers[0].epsilon_ratio == 100.0
    assert relative_error(model, converted, data) < 0.05


def test_examples_unlike_the_training_are_named(trained):
    model, data, _ = trained
    _, report = keras_norm.convert(model, "gn", data=data * 20 + 100)
    assert any(
        w.startswith("norm_1: the means of its inputs are")
        for w in report.calibration.warnings
    )
    _, report = keras_norm.convert(model, "gn", data=data[:10])
    assert any("Only 9 examples" in w for w in report.calibration.warnings)


def test_memory_limits_the_number_of_examples(trained, monkeypatch):
    from keras_norm.calibration import calibrate

    model, data, _ = trained
    monkeypatch.setattr(calibrate, "MAX_BYTES", 2**20)
    _, report = keras_norm.convert(model, "gn", data=data, refit="affine")
    result = report.calibration
    assert result.num_read == 256
    assert 2 < result.num_fitted + result.num_held_out < 256
    assert any("of 224 examples" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": np.zeros((1, 8, 8, 1))}, "Received: 1"),
        ({"data": np.zeros((0, 8, 8, 1))}, "no examples"),
        ({"data": np.zeros((4, 9, 8, 1))}, "wrong shape"),
        ({"data": np.full((4, 8, 8, 1), np.nan)}, "NaN or infinity"),
        ({"data": "images"}, "Received: data='images'"),
        ({"data": np.zeros((4, 8, 8, 1)), "refit": "head"}, "refit='head'"),
        (
            {"data": np.zeros((4, 8, 8, 1)), "epsilon_ratio": -1},
            "epsilon_ratio=-1",
        ),
    ],
)
def test_invalid_arguments_raise_an_error_of_one_line(trained, options, words):
    model, _, _ = trained
    with pytest.raises(keras_norm.ConversionError) as caught:
        keras_norm.convert(model, "frn", **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_are_not_used(trained):
    model, data, _ = trained
    with_labels, _ = keras_norm.convert(
        model, "ln", data=(data, np.arange(256)), refit="affine"
    )
    without, _ = keras_norm.convert(model, "ln", data=data, refit="affine")
    for a, b in zip(
        with_labels.get_weights(), without.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
