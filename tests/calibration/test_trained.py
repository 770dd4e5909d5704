"""Calibrated conversion of networks that others trained."""

import numpy as np
import pytest

import keras_norm
from keras_norm.saving import load
from tests.conversion.test_trained import labelled  # noqa: F401
from tests.conversion.test_trained import network  # noqa: F401
from tests.conversion.test_trained import num_right
from tests.folding.test_trained import crepe  # noqa: F401
from tests.folding.test_trained import tones


def crops(images, number):
    """Returns random crops and flips of images, resized by padding."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(number):
        image = images[generator.integers(len(images))]
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        y, x = generator.integers(0, 9, size=2)
        crop = padded[y : y + 32, x : x + 32]
        found.append(crop[:, ::-1] if generator.integers(2) else crop)
    return np.stack(found)


@pytest.mark.long
@pytest.mark.parametrize(
    ("norm", "options"),
    [
        ("frn", {"epsilon_ratio": 10.0}),
        ("gn", {"groups": 2}),
        ("ln", {}),
    ],
)
def test_cifar_network(norm, options, network, labelled):  # noqa: F811
    images, labels = labelled
    model, _ = load.load_model(network)
    right = 0
    for half in (slice(0, 10), slice(10, 20)):
        other = slice(10, 20) if half.start == 0 else slice(0, 10)
        converted, report = keras_norm.convert(
            model, norm, data=crops(images[half], 256), **options
        )
        right += num_right(converted, images[other], labels[other])
        print(norm, options, right, report.calibration.summary())
    assert right >= 18


def cents_of(model, frames):
    """Returns pitches in cents: the mean of the nine bins around the peak."""
    outputs = model.predict(frames, verbose=0)
    center = outputs.argmax(-1)
    bins = np.arange(360)
    near = np.abs(bins - center[:, None]) <= 4
    weights = np.where(near, outputs, 0.0)
    cents = 1997.3794084376191 + 7180 * bins / 359
    return (weights * cents).sum(-1) / weights.sum(-1)


def pitch_accuracy(model, frames, pitches):
    errors = np.abs(cents_of(model, frames) - 1200 * np.log2(pitches / 10))
    return float(np.mean(errors <= 50))


@pytest.mark.long
@pytest.mark.parametrize(
    ("norm", "options"),
    [("frn", {"epsilon_ratio": 10.0}), ("gn", {"groups": 2})],
)
def test_pitch_network(norm, options, crepe):  # noqa: F811
    calibration, _ = tones(512, seed=1)
    frames, pitches = tones(400, seed=2)
    frames = frames + 0.1 * np.random.default_rng(3).normal(size=frames.shape)
    frames -= frames.mean(axis=1, keepdims=True)
    frames /= frames.std(axis=1, keepdims=True)
    converted, report = keras_norm.convert(
        crepe, norm, data=calibration, **options
    )
    expected = pitch_accuracy(crepe, frames, pitches)
    found = pitch_accuracy(converted, frames, pitches)
    print(norm, expected, found, report.calibration.summary())
    assert expected > 0.95
    assert found >= expected - 0.015
    assert report.calibration.seconds < 600
