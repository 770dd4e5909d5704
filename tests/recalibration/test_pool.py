"""Tests of `keras_norm.pool`."""

import json
import os

import keras
import numpy as np
import pytest

import keras_norm
import keras_norm_cli

LAYERS = keras.layers


def network(cls=LAYERS.BatchNormalization, **kwargs):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            cls(name="input_norm", **kwargs),
            LAYERS.Conv2D(4, 3, name="conv"),
        ]
    )


def two_classes(generator):
    """Two halves with other means and spreads, of different sizes."""
    first = generator.normal(0.0, 1.0, size=(30, 6, 5, 3))
    second = generator.normal(4.0, 3.0, size=(50, 6, 5, 3))
    return first.astype("float32"), second.astype("float32")


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (LAYERS.BatchNormalization, {}),
        (keras_norm.BatchNormalization, {"renorm": True}),
        (keras_norm.RBN, {}),
    ],
)
def test_halves_equal_the_whole(cls, kwargs):
    model = network(cls, **kwargs)
    halves = two_classes(np.random.default_rng(0))
    parts = [keras_norm.recalibrate(model, half)[0] for half in halves]
    whole, _ = keras_norm.recalibrate(model, np.concatenate(halves))
    pooled = keras_norm.pool(parts, [30, 50])
    for got, expected in zip(
        pooled.get_weights(), whole.get_weights(), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    # A weighted mean of variances, without the distance of the means, differs.
    name = "input_norm"
    variances = [
        keras.ops.convert_to_numpy(m.get_layer(name).moving_variance)
        for m in (*parts, pooled)
    ]
    mean_of_variances = 0.375 * variances[0] + 0.625 * variances[1]
    assert np.all(variances[2] > mean_of_variances + 3)


def test_layer_by_layer_equals_the_whole_in_a_deep_network():
    inputs = keras.Input((6, 5, 3))
    x = LAYERS.BatchNormalization(name="first")(inputs)
    x = LAYERS.ReLU()(LAYERS.Conv2D(4, 3)(x))
    x = LAYERS.BatchNormalization(name="second")(x)
    model = keras.Model(inputs, x)
    halves = two_classes(np.random.default_rng(0))
    whole, _ = keras_norm.recalibrate(model, np.concatenate(halves))
    once = keras_norm.pool(
        [keras_norm.recalibrate(model, half)[0] for half in halves], [30, 50]
    )
    for name in ("first", "second"):
        model = keras_norm.pool(
            [
                keras_norm.recalibrate(model, half, include=name)[0]
                for half in halves
            ],
            [30, 50],
        )

    def second(pooled):
        variance = pooled.get_layer("second").moving_variance
        return keras.ops.convert_to_numpy(variance)

    np.testing.assert_allclose(second(model), second(whole), rtol=1e-5)
    # Pooled once, later layers saw other inputs.
    assert np.max(np.abs(second(once) / second(whole) - 1)) > 1e-2


def test_other_weights_are_equal_or_averaged():
    models = [network() for _ in range(2)]
    kernels = [np.full((3, 3, 3, 4), value, "float32") for value in (1.0, 5.0)]
    for model, kernel in zip(models, kernels, strict=True):
        model.get_layer("conv").kernel.assign(kernel)
    with pytest.raises(
        keras_norm.ConversionError, match="conv/kernel.*average"
    ):
        keras_norm.pool(models, [3, 1])
    pooled = keras_norm.pool(models, [3, 1], average_weights=True)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(pooled.get_layer("conv").kernel), 2.0
    )


def test_eval_norm_mixing_is_averaged():
    models = [network(keras_norm.EvalNorm) for _ in range(2)]
    for model, value in zip(models, (0.2, 0.6), strict=True):
        model.get_layer("input_norm").mean_mix.assign(value)
    pooled = keras_norm.pool(models, [1, 1])
    mix = pooled.get_layer("input_norm").mean_mix
    assert float(keras.ops.convert_to_numpy(mix)) == pytest.approx(0.4)


def test_one_line_errors():
    model = network()
    other = keras.Sequential(
        [keras.Input((6, 5, 3)), LAYERS.BatchNormalization()]
    )
    plain = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2)])
    broken = network()
    broken.get_layer("input_norm").moving_mean.assign([0.0, np.nan, 0.0])
    for models, counts, message in (
        ([model, other], [1, 1], "same layers"),
        ([model, model], [1], "2 models"),
        ([model, model], [0, 0], "counts"),
        ([model, model], [-1, 2], "counts"),
        ([model, model], {1, 2}, "counts"),
        ([], [], "0 models"),
        ([plain], [1], "no batch normalization"),
        ([model, broken], [1, 1], "'input_norm' are not valid"),
    ):
        with pytest.raises(keras_norm.ConversionError, match=message) as error:
            keras_norm.pool(models, counts)
        assert "\n" not in str(error.value)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Files of two copies with statistics of two classes."""
    monkeypatch.chdir(tmp_path)
    halves = two_classes(np.random.default_rng(0))
    parts = [keras_norm.recalibrate(network(), half)[0] for half in halves]
    for part, name in zip(parts, ("a.keras", "b.keras"), strict=True):
        part.save(name)
    return parts


def run(capfd, *arguments):
    code = keras_norm_cli.main(["pool", *arguments])
    output, errors = capfd.readouterr()
    return code, output, errors


def test_command_writes_the_pooled_model(copies, capfd):
    command = "a.keras", "b.keras", "out.keras", "--counts=30,50"
    code, output, errors = run(capfd, *command)
    assert code == 0
    assert errors == (
        "wrote out.keras: keras.saving.load_model('out.keras') loads it\n"
    )
    assert "statistics of 1 layer pooled from 2 models" in output
    written = keras.saving.load_model("out.keras")
    expected = keras_norm.pool(copies, [30, 50])
    for got, wanted in zip(
        written.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)
    code, output, _ = run(capfd, *command, "--json", "--overwrite")
    assert json.loads(output)["counts"] == [30, 50]
    assert json.loads(output)["layers"] == ["input_norm"]


def test_command_averages_weights_on_request(copies, capfd):
    copies[1].get_layer("conv").bias.assign(np.full(4, 8.0, "float32"))
    copies[1].save("b.keras")
    command = "a.keras", "b.keras", "out.keras", "--counts=3,1"
    code, _, errors = run(capfd, *command)
    assert code == 1 and "conv/bias" in errors
    assert run(capfd, *command, "--average-weights")[0] == 0
    bias = keras.saving.load_model("out.keras").get_layer("conv").bias
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), 2.0)


def test_command_prints_one_line_errors(copies, capfd):
    other = [keras.Input((6, 5, 3)), LAYERS.BatchNormalization()]
    keras.Sequential(other).save("other.keras")
    plain = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2)], name="plain")
    plain.save("plain.keras")
    files = sorted(os.listdir())
    for names, counts, message in (
        ("a.keras b.keras out.keras", "30", "2 models, counts=[30.0]"),
        ("a.keras b.keras out.keras", "0,0", "at least one above 0"),
        ("a.keras b.keras out.keras", "1,inf", "counts"),
        ("a.keras other.keras out.keras", "1,1", "the same layers"),
        ("plain.keras plain.keras out.keras", "1,1", "no batch normalization"),
        ("a.keras nothing.keras out.keras", "1,1", "nothing.keras"),
        ("a.keras b.keras", "1,1", "'b.keras' exists"),
        ("a.keras b.keras out.h5", "1,1", "does not end in .keras"),
    ):
        code, output, errors = run(capfd, *names.split(), f"--counts={counts}")
        assert code == 1 and output == "", names
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert message in errors
    assert sorted(os.listdir()) == files


def test_command_needs_numbers(capfd):
    with pytest.raises(SystemExit):
        run(capfd, "a.keras", "b.keras", "out.keras", "--counts=1,many")
    assert "'1,many' is not a list of numbers" in capfd.readouterr().err
