"""The command keras-norm fold."""

import json
import os
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm_cli
from tests.folding.models import batch
from tests.folding.models import chain
from tests.folding.models import relative_difference


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chain(
        (6, 7, 3),
        layers.Conv2D(4, 3, padding="same"),
        layers.BatchNormalization(name="first"),
        layers.ReLU(),
        layers.BatchNormalization(name="second"),
        layers.Activation("tanh"),
        dtype="float32",
    ).save("model.keras")
    return tmp_path


def run(capfd, *arguments):
    code = keras_norm_cli.main(["fold", *map(str, arguments)])
    output, errors = capfd.readouterr()
    return code, output, errors


def test_writes_a_folded_model_and_prints_a_table(folder, capfd):
    before = pathlib.Path("model.keras").read_bytes()
    code, output, errors = run(capfd, "model.keras", "out.keras")
    assert code == 0
    assert errors == (
        "wrote out.keras: keras.saving.load_model('out.keras') loads it\n"
    )
    assert "1 of 2 batch normalizations folded" in output
    assert "kept: follows" in output and "verified on 2 random" in output
    model, folded = map(keras.saving.load_model, ("model.keras", "out.keras"))
    assert relative_difference(model, folded, batch(model)) < 1e-5
    assert pathlib.Path("model.keras").read_bytes() == before


def test_options(folder, capfd):
    code, output, errors = run(capfd, "model.keras", "--plan", "--json")
    assert code == 0 and errors == "" and os.listdir() == ["model.keras"]
    assert json.loads(output)["num_folded"] == 1
    np.save("inputs.npy", np.ones((3, 6, 7, 3)))
    arguments = "model.keras", "out.keras", "--exclude=second", "--json"
    code, output, _ = run(capfd, *arguments, "--inputs=inputs.npy")
    reports = json.loads(output)
    assert [c["num_samples"] for c in reports["comparisons"]] == [2, 3]
    code, output, _ = run(
        capfd, *arguments, "--no-verify", "--overwrite", "--include=first"
    )
    assert code == 0 and json.loads(output)["comparisons"] == []


def test_errors_are_one_line(folder, capfd):
    chain((4,), layers.Dense(3), dtype="float32").save("dense.keras")
    inside = layers.TimeDistributed(layers.BatchNormalization())
    chain((3, 2, 4), layers.TimeDistributed(inside), dtype="float32").save(
        "wrapped.keras"
    )
    broken = keras.saving.load_model("model.keras")
    mean = broken.get_layer("first").moving_mean
    mean.assign(np.full(mean.shape, np.nan))
    broken.save("broken.keras")
    for arguments, words in (
        (("dense.keras", "out.keras"), "nothing to fold"),
        (("wrapped.keras", "out.keras"), "No functional graph leads to"),
        (("broken.keras", "out.keras"), "invalid values in moving_mean"),
        (("model.keras", "out.keras", "--include=third"), "matches no batch"),
        (("model.keras", "model.keras"), "--overwrite"),
        (("model.keras",), "pass either OUT"),
        (("nothing.keras", "out.keras"), "nothing.keras"),
    ):
        code, output, errors = run(capfd, *arguments)
        assert code == 1 and output == "" and words in errors, arguments
        assert errors.startswith("error: ") and errors.count("\n") == 1
    assert "out.keras" not in os.listdir()


def test_help_names_the_command(capfd):
    with pytest.raises(SystemExit):
        keras_norm_cli.main(["--help"])
    output, _ = capfd.readouterr()
    assert "keras-norm fold model.keras folded.keras" in output
