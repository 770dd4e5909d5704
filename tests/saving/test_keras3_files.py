"""Files of older versions of Keras 3."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.saving import test_keras2

IMAGE = (8, 9, 4)
OLD = "3.5.0"


def write(path, layer, edit, version=OLD):
    """Saves a model of one layer as an older version of Keras did."""
    x = keras.Input(IMAGE)
    keras.Model(x, layer(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    edit(config["config"]["layers"][-1]["config"])
    members["config.json"] = json.dumps(config)
    members["metadata.json"] = json.dumps({"keras_version": version})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


# Issues: keras-team/keras #21110.
def test_value_range_of_a_rotation_is_dropped(tmp_path):
    path = tmp_path / "old.keras"
    layer = layers.RandomRotation(0.2)
    write(path, layer, lambda config: config.update(value_range=[0, 255]))
    model, notes = keras_norm.load_model(path)
    assert list(model.layers[1].factor) == [-0.2, 0.2] and notes == []


def test_factor_of_a_contrast_counts_in_both_directions(tmp_path):
    path = tmp_path / "old.keras"
    layer = layers.RandomContrast(0.2)
    write(path, layer, lambda config: config.update(factor=0.2))
    model, notes = keras_norm.load_model(path)
    assert list(model.layers[1].factor) == [0.2, 0.2] and notes == []


def test_random_crop_crops_at_inference(tmp_path):
    path = tmp_path / "old.keras"
    write(path, layers.RandomCrop(4, 5), lambda config: None)
    model, notes = keras_norm.load_model(path)
    assert model.output_shape == (None, 4, 5, 4)
    assert len(notes) == 1 and "RandomCrop" in notes[0]
    write(path, layers.RandomCrop(4, 5), lambda config: None, "3.8.0")
    model, notes = keras_norm.load_model(path)
    assert type(model.layers[1]) is layers.RandomCrop and notes == []


def test_a_value_that_keras_reads_differently_is_in_the_notes(
    tmp_path, monkeypatch
):
    path = tmp_path / "old.keras"
    write(path, layers.ReLU(max_value=6.0), lambda config: None)
    assert keras_norm.load_model(path)[1] == []
    get_config = layers.ReLU.get_config
    monkeypatch.setattr(
        layers.ReLU,
        "get_config",
        lambda self: {**get_config(self), "max_value": 7.0},
    )
    (note,) = keras_norm.load_model(path)[1]
    assert "max_value=6.0 of the file as 7.0" in note


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="compares with TensorFlow",
)
@pytest.mark.parametrize("version", ["3.0.5", "3.3.3", "3.5.0"])
def test_files_of_older_versions_give_their_outputs(version, tmp_path):
    package, files = tmp_path / "package", tmp_path / "files"
    files.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps"]
    done = subprocess.run(
        [*install, "--target", package, f"keras=={version}"],
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"pip cannot install keras=={version}")
    path = os.pathsep.join(map(str, (package, test_keras2.ROOT)))
    subprocess.run(
        [sys.executable, "-m", "tests.saving.keras3_writer", files],
        check=True,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path,
        capture_output=True,
    )
    paths = sorted(files.glob("*.keras"))
    assert len(paths) >= 30
    assert test_keras2.problems(paths) == {}
    with zipfile.ZipFile(paths[0]) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["keras_version"] == version
    assert np.sum([test_keras2.loads_with_keras(path) for path in paths]) > 0
