"""Tests of `keras-norm convert --data`."""

import json

import keras
import numpy as np
import pytest

import keras_norm
import keras_norm_cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("command")
    images = np.random.default_rng(0).integers(0, 256, size=(80, 6, 6, 3))
    np.save(folder / "x.npy", images / 127.5 - 1)
    (folder / "photos").mkdir()
    for i, image in enumerate(images):
        keras.utils.save_img(
            folder / "photos" / f"{i:03}.png", image, scale=False
        )
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ],
        name="small",
    )
    model, _ = keras_norm.recalibrate(model, images / 127.5 - 1)
    model.save(folder / "model.keras")
    return folder


def run(capfd, monkeypatch, folder, *arguments):
    monkeypatch.chdir(folder)
    command = ["convert", "model.keras", "out.keras", "--to=frn", "--overwrite"]
    code = keras_norm_cli.main([*command, *map(str, arguments)])
    output, errors = capfd.readouterr()
    return code, output, errors


def read_weights(folder):
    return keras.saving.load_model(folder / "out.keras").get_weights()


def test_arrays_and_folders_give_the_same_model(folder, capfd, monkeypatch):
    code, output, errors = run(capfd, monkeypatch, folder, "--data=x.npy")
    assert code == 0, errors
    assert "Calibrated on 70 examples" in output
    expected = read_weights(folder)
    code, output, errors = run(
        capfd, monkeypatch, folder, "--data=photos", "--pixels=tf", "--json"
    )
    assert code == 0, errors
    assert json.loads(output)["calibration"]["num_fitted"] == 70
    for a, b in zip(read_weights(folder), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    model = keras.saving.load_model(folder / "model.keras")
    direct, _ = keras_norm.convert(model, "frn", data=np.load(folder / "x.npy"))
    for a, b in zip(direct.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_options(folder, capfd, monkeypatch):
    code, output, errors = run(
        capfd, monkeypatch, folder, "--data=x.npy", "--num-images=40",
        "--refit=affine", "--epsilon-ratio=0.5", "--distill-steps=3",
        "--distill-batch-size=4",
    )  # fmt: skip
    assert code == 0, errors
    assert "Calibrated on 35 examples" in output
    assert "refit='affine', distilled 3 steps of 4" in output
    assert "epsilon 0.5x" in output
    assert "Only 35 examples" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=nothing"], "--data does not exist"),
        (["--data=photos"], "pass --pixels"),
        (["--refit=next"], "`refit` needs `data`"),
        (["--data=x.npy", "--distill-steps=-1"], "`distill_steps` must be"),
    ],
)
def test_one_line_errors(folder, capfd, monkeypatch, arguments, message):
    code, output, errors = run(capfd, monkeypatch, folder, *arguments)
    assert code == 1 and output == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors
