"""The command upgrade, and files with weights only."""

import json
import os
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.conversion import verify
from keras_norm.saving import load
from tests.saving import keras2_examples
from tests.test_cli import run


def build():
    """Builder of the model whose weights are in files."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            layers.Conv2D(3, 2, activation="hard_sigmoid"),
            layers.BatchNormalization(name="norm"),
        ]
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras2_examples.write_hdf5("old.h5", build())
    return tmp_path


def test_upgrade_writes_a_file_that_keras_loads(folder, capfd):
    before = pathlib.Path("old.h5").read_bytes()
    code, output, errors = run(
        capfd, "upgrade", "old.h5", "new.keras", "--verify"
    )
    assert code == 0
    assert "verified on 2 random samples" in output
    assert "Saved by Keras 2.9.0" in errors and "wrote new.keras" in errors
    model = keras.saving.load_model("new.keras")
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 2)).astype("float32")
    expected, _ = load.load_model("old.h5")
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(expected(x)))
    # hard_sigmoid of Keras 2, not that of Keras 3.
    value = model.layers[0].activation(keras.ops.array(-2.8))
    assert float(value) == 0.0
    assert pathlib.Path("old.h5").read_bytes() == before


def test_upgrade_prints_json(folder, capfd):
    code, output, _ = run(
        capfd, "upgrade", "old.h5", "new.keras", "--verify", "--json"
    )
    report = json.loads(output)
    assert code == 0
    assert report["renamed"] == {} and report["verified"]["largest"] == 0
    assert report["notes"][0].startswith("Saved by Keras 2.9.0")


def test_upgrade_replaces_a_file_only_with_overwrite(folder, capfd):
    pathlib.Path("new.keras").write_text("precious")
    code, _, errors = run(capfd, "upgrade", "old.h5", "new.keras")
    assert code == 1 and errors.count("\n") == 1 and "--overwrite" in errors
    assert pathlib.Path("new.keras").read_text() == "precious"
    code, _, _ = run(capfd, "upgrade", "old.h5", "new.keras", "--overwrite")
    assert code == 0 and keras.saving.load_model("new.keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("missing.h5 new.keras", "does not exist"),
        ("old.h5 new.h5", "does not end in .keras"),
        ("old.h5 new.keras --builder nix:f", "--builder nix failed"),
        ("old.h5 new.keras --builder json:dumps", "contains a whole model"),
        ("w.weights.h5 new.keras", "--builder"),
        ("w.weights.h5 new.keras --builder json:nix", "MODULE:FUNCTION"),
        ("w.weights.h5 new.keras --builder os:getcwd", "a built Keras model"),
    ],
)
def test_upgrade_prints_a_one_line_error(arguments, message, folder, capfd):
    build().save_weights("w.weights.h5")
    before = sorted(os.listdir())
    code, output, errors = run(capfd, "upgrade", *arguments.split())
    assert (code, output) == (1, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert message in errors
    assert sorted(os.listdir()) == before


def test_a_file_that_differs_from_the_model_is_not_written(
    folder, capfd, monkeypatch
):
    def save_other(model, path, overwrite=False):
        model.layers[-1].gamma.assign([5.0, 6.0, 7.0])
        keras.saving.save_model(model, path)
        model.layers[-1].gamma.assign([1.0, 1.0, 1.0])

    monkeypatch.setattr(verify.load, "save_model", save_other)
    code, _, errors = run(capfd, "upgrade", "old.h5", "new.keras", "--verify")
    assert code == 1 and "has other outputs" in errors
    assert os.listdir() == ["old.h5"]


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5"])
def test_weights_are_loaded_into_the_model_of_a_builder(name, folder):
    model = build()
    model.layers[1].gamma.assign([5.0, 6.0, 7.0])
    if name == "w.h5":
        keras2_examples.write_weights(name, model)
    else:
        model.save_weights(name)
    loaded, _ = keras_norm.load_model(name, builder=build)
    for value, expected in zip(
        loaded.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, expected)
    other = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    with pytest.raises(keras_norm.ConversionError):
        keras_norm.load_model(name, builder=lambda: other)
