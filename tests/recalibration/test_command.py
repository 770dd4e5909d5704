"""Tests of `keras-norm recalibrate`."""

import json

import keras
import numpy as np
import pytest

import keras_norm
import keras_norm_cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [
            keras.Input((6, 4, 3), name="image"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Conv2D(2, 3),
        ],
        name="small",
    )
    model.save("model.keras")
    return tmp_path


def run(capfd, *arguments):
    command = ["recalibrate", "model.keras", "out.keras", *map(str, arguments)]
    code = keras_norm_cli.main(command)
    output, errors = capfd.readouterr()
    return code, output, errors


def read_mean():
    model = keras.saving.load_model("out.keras")
    return keras.ops.convert_to_numpy(model.get_layer("norm").moving_mean)


def test_arrays_of_files(folder, capfd):
    x = np.random.default_rng(0).normal(3, size=(10, 6, 4, 3))
    np.save("x.npy", x)
    np.savez("one.npz", image=x)
    np.savez("several.npz", x_train=x, y_train=np.zeros(10))
    for arguments in (
        ["--data", "x.npy"],
        ["--data", "one.npz", "--overwrite", "--batch-size", "3"],
        ["--data=several.npz", "--array=x_train", "--overwrite"],
    ):
        code, output, errors = run(capfd, *arguments)
        assert code == 0 and errors.startswith("wrote out.keras")
        assert "1 recalibrated" in output and "10 examples" in output
        np.testing.assert_allclose(read_mean(), x.mean((0, 1, 2)), rtol=1e-5)
    code, output, _ = run(
        capfd, "--data=x.npy", "--json", "--overwrite", "--num-images=5",
        "--prior=15", "--method=batch", "--include=norm",
    )  # fmt: skip
    report = json.loads(output)
    assert report["num_examples"] == 5 and report["prior"] == 15
    expected = 0.25 * x[::2].mean((0, 1, 2))
    np.testing.assert_allclose(read_mean(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "scale"),
    [
        ("0..255", lambda x: x),
        ("0..1", lambda x: x / 255),
        ("tf", lambda x: x / 127.5 - 1),
        ("caffe", lambda x: x[::-1] - [103.939, 116.779, 123.68]),
        (
            "torch",
            lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        ),
    ],
)
def test_folder_of_images(folder, capfd, pixels, scale):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, size=(4, 6, 4, 3)).astype("uint8")
    (folder / "photos" / "cats").mkdir(parents=True)
    for i, image in enumerate(images):
        parent = folder / "photos" / ("cats" if i % 2 else "")
        keras.utils.save_img(parent / f"{i}.png", image, scale=False)
    (folder / "photos" / "notes.txt").write_text("no image")
    code, _, errors = run(
        capfd, "--data=photos", f"--pixels={pixels}", "--batch-size=3"
    )
    assert code == 0, errors
    expected = scale(images.mean((0, 1, 2), dtype=np.float64))
    np.testing.assert_allclose(read_mean(), expected, rtol=1e-4, atol=1e-5)


def test_one_line_errors(folder, capfd):
    np.save("x.npy", np.ones((4, 6, 4, 3)))
    np.save("wrong.npy", np.ones((4, 5, 4, 3)))
    np.save("nan.npy", np.full((4, 6, 4, 3), np.nan))
    np.savez("two.npz", a=np.ones(3), b=np.ones(3))
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "1.jpg").write_bytes(b"no image")
    (folder / "text.npy").write_text("no array")
    for arguments, message in (
        (["--data=nothing"], "--data does not exist"),
        (["--data=empty"], "pass --pixels"),
        (["--data=empty", "--pixels=0..1"], "has no images"),
        (["--data=broken", "--pixels=0..1"], "cannot be read"),
        (["--data=wrong.npy"], "wrong shape for the input 'image'"),
        (["--data=nan.npy"], "NaN or infinity"),
        (["--data=two.npz"], "an array for each input"),
        (["--data=two.npz", "--array=c"], "no array 'c'"),
        (["--data=text.npy"], "--data must be an .npy or .npz"),
        (["--data=x.npy", "--pixels=0..1"], "for a folder of images"),
        (["--data=x.npy", "--num-images=0"], "must be positive"),
        (["--data=x.npy", "--include=bn"], "matches no batch normalization"),
    ):
        code, output, errors = run(capfd, *arguments)
        assert code == 1 and output == "", arguments
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert message in errors
        assert not (folder / "out.keras").exists()


def test_model_without_statistics(folder, capfd):
    layers = [keras.Input((3,)), keras_norm.FRN(learned_epsilon=True)]
    keras.Sequential(layers, name="plain").save("model.keras")
    np.save("x.npy", np.ones((4, 3)))
    code, _, errors = run(capfd, "--data=x.npy")
    assert code == 1
    assert errors.startswith("error: 'plain' has no batch normalization")
