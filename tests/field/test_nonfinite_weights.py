"""Non-finite weights and outputs are named and never compare as equal."""

import json
import types

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_norm
import keras_norm_cli
from keras_norm.conversion import verify
from tests.assertions import to_numpy
from tests.conversion import small_models

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
FAULTS = [
    ("bn", "moving_variance", (2,), np.nan),
    ("bn", "moving_variance", (2,), np.inf),
    ("bn", "moving_variance", (2,), -1.0),
    # Plus the epsilon of 1e-3 this is zero, which has no inverse.
    ("bn", "moving_variance", (0,), -1e-3),
    ("bn", "moving_mean", (1,), np.nan),
    ("bn", "gamma", (3,), -np.inf),
    ("bn", "beta", (3,), np.nan),
    ("conv", "kernel", (0, 1, 2, 3), np.nan),
    ("head", "bias", (1,), np.inf),
]


def network():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="head"),
        ],
        name="network",
    )
    small_models.fill(model)
    return model


def put(layer, name, index, value):
    (variable,) = (v for v in layer.variables if v.name == name)
    array = np.array(to_numpy(variable))
    array[index] = value
    variable.assign(array)


def message(function, *args, **kwargs):
    with pytest.raises(keras_norm.ConversionError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# https://github.com/keras-team/tf-keras/issues/379
# https://github.com/tensorflow/tensorflow/issues/34062
# https://github.com/keras-team/keras/issues/9646
@pytest.mark.parametrize("norm", ["bn", "frozen", "brn", "rbn", "frn"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f[1]}={f[3]}")
def test_verifying_names_the_layer(fault, norm):
    layer, name, index, value = fault
    model = network()
    put(model.get_layer(layer), name, index, value)
    text = message(keras_norm.convert, model, norm, verify=True)
    kind = type(model.get_layer(layer)).__name__
    assert (
        f"'{layer}' ({kind}) has invalid values in" in text
        and ": 1 of" in text
        and "assign finite" in text
    )
    assert text.endswith(f"Received: {layer}/{name}{list(index)}={value:g}")
    # Without verification the report names them.
    _, report = keras_norm.convert(model, norm)
    assert any(f"'{layer}' ({kind})" in note for note in report.notes)


def test_it_is_found_inside_of_models_and_layers():
    x = keras.Input((6, 6, 3))
    y = network()(x)
    y = layers.BatchNormalization(name="last")(y)
    y = layers.Reshape((2, 1))(y)
    y = layers.Bidirectional(layers.LSTM(2), name="both")(y)
    model = keras.Model(x, y)
    inner = model.get_layer("network").get_layer("bn")
    put(inner, "moving_variance", (1,), np.nan)
    assert "'network/bn'" in message(
        keras_norm.convert, model, "bn", verify=True
    )
    put(inner, "moving_variance", (1,), 1.0)
    cell = model.get_layer("both").backward_layer.cell
    put(cell, "bias", (0,), np.nan)
    text = message(keras_norm.convert, model, "bn", verify=True)
    assert f"'both/{model.get_layer('both').backward_layer.name}/" in text


def test_a_small_negative_variance_has_an_inverse():
    model = network()
    put(model.get_layer("bn"), "moving_variance", (0,), -5e-4)
    _, report = keras_norm.convert(model, "bn", verify=True)
    assert report.comparisons[0].largest == 0.0 and not report.notes


def test_frn_epsilon_does_not_start_at_an_invalid_variance():
    x = keras.Input((4,))
    model = keras.Model(x, layers.BatchNormalization(name="bn")(x))
    for value in (np.nan, np.inf, -9.0):
        put(model.get_layer("bn"), "moving_variance", (0,), value)
        converted, report = keras_norm.convert(model, "frn")
        assert all(np.all(np.isfinite(v)) for v in converted.get_weights())
        assert "'bn'" in report.notes[-1]


def test_the_command_line_names_it(tmp_path, capsys):
    model = network()
    put(model.get_layer("bn"), "moving_variance", (2,), -1.0)
    model.save(tmp_path / "broken.keras")
    path, out = str(tmp_path / "broken.keras"), tmp_path / "out.keras"
    command = ["convert", path, str(out), "--to=bn"]
    assert keras_norm_cli.main([*command, "--verify"]) == 1
    captured = capsys.readouterr()
    assert "bn/moving_variance[2]=-1" in captured.err and not out.exists()
    assert keras_norm_cli.main(["inspect", path, "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "bn/moving_variance[2]=-1" in note
    assert keras_norm_cli.main(command) == 0
    assert "bn/moving_variance[2]=-1" in capsys.readouterr().out


def test_overflowing_outputs_fail_verification():
    keras.config.set_dtype_policy("float16")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, name="large"),
            layers.Dense(2, name="head"),
        ]
    )
    small_models.fill(model)
    model.get_layer("large").kernel.assign(np.full((4, 2), 6e4))
    text = message(keras_norm.convert, model, "bn", verify=True)
    assert "not finite, first in 'large' (float16)" in text
    given = np.zeros((2, 4), "float16")
    model.get_layer("large").bias.assign([0.0, 0.0])
    model.get_layer("bn").beta.assign(np.zeros(4))
    model.get_layer("bn").moving_mean.assign(np.zeros(4))
    _, report = keras_norm.convert(model, "bn", inputs=given)
    assert [c.inputs for c in report.comparisons] == ["given"]
    assert "Not compared on random inputs" in report.notes[0]


@pytest.mark.filterwarnings("ignore:.*encountered in log:RuntimeWarning")
def test_nan_outputs_of_finite_weights():
    x = keras.Input((4,))
    model = keras.Model(x, layers.BatchNormalization()(ops.log(x)))
    text = message(keras_norm.convert, model, "bn", verify=True)
    assert "first in 'log" in text and "Received: nan" in text
    zeros = np.zeros((2, 4), "float32")
    text = message(keras_norm.convert, model, "bn", inputs=zeros)
    assert "given inputs" in text and "Received: -inf" in text


@pytest.mark.parametrize("norm", ["bn", "rbn", "frn"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_results_raise_an_error(norm, value):
    model = network()
    converted, report = keras_norm.convert(model, norm)
    put(converted.get_layer("bn"), "beta", (0,), value)
    text = message(verify.verify_conversion, model, converted, report)
    assert "the new model 'network'" in text and "first in 'bn'" in text


@pytest.mark.parametrize("place", [0, 1])
def test_a_nan_is_the_worst_in_any_place(place):
    if not ON_TENSORFLOW:
        pytest.skip("the recipes run on TensorFlow")
    pytest.importorskip("absl")
    from recipes.export import writer

    numbers = [1e-9, 1e-9]
    numbers[place] = np.nan
    assert writer.largest(numbers) == np.inf


@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_a_nan_detection_is_excluded(name):
    if not ON_TENSORFLOW:
        pytest.skip("the recipes run on TensorFlow")
    pytest.importorskip("absl")
    from recipes.detection import export

    def found():
        return {
            "num_detections": np.array([1]),
            "boxes": np.array([[[1.0, 2.0, 30.0, 40.0], [0, 0, 0, 0]]]),
            "scores": np.array([[0.9, 0.0]]),
            "classes": np.array([[1, 0]]),
        }

    shape = (1, 64, 64, 3)
    assert export.largest_difference(found(), found(), shape, 0.5) == 0.0
    broken = found()
    broken[name][0, 0] = np.nan
    for pair in ((broken, found()), (found(), broken), (broken, broken)):
        assert export.largest_difference(*pair, shape, 0.5) == np.inf


def test_an_export_names_the_layer(tmp_path):
    if not ON_TENSORFLOW:
        pytest.skip("the recipes run on TensorFlow")
    pytest.importorskip("absl")
    from recipes.errors import RecipeError
    from recipes.export import writer

    model = network()
    put(model.get_layer("bn"), "moving_variance", (2,), np.nan)
    config = types.SimpleNamespace(export_format="saved_model", folder=tmp_path)
    with pytest.raises(RecipeError, match="'bn'.*moving_variance"):
        writer.write_export(config, model, {}, None)
