"""Small models and their exports."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_norm
from recipes.classification import export
from recipes.export import formats
from recipes.models import classifiers
from tests.recipes.small_runs import make_config

IMAGE = (8, 8, 3)


def require_format(name):
    packages = formats.FORMATS[name].packages.items()
    missing = [p for m, p in packages if importlib.util.find_spec(m) is None]
    reason = f"not installed: {', '.join(missing)}"
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=reason))


def randomize_weights(model):
    """Gives all weights but kernels values that differ from their start."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low, high = -0.3, 0.3
        if weight.name in ("mean_mix", "variance_mix"):
            low, high = 0.2, 0.8
        if weight.name in ("gamma", "scale_bias", "learned_epsilon") or (
            weight.name in ("moving_variance", "renorm_std")
        ):
            low, high = 0.5, 1.5
        # A Normalization layer reads its weights only when it is adapted.
        if weight.name not in ("kernel", "mean", "variance", "count"):
            weight.assign(generator.uniform(low, high, weight.shape))
    return model


def make_network(norms=("frn",), shape=IMAGE):
    """Returns a model of convolutions, each with a norm and an activation."""
    inputs = x = keras.Input(shape)
    for name in norms:
        norm = keras_norm.get(name)
        options = {"groups": 2} if name == "gn" else {}
        x = keras.layers.Conv2D(4, 3, padding="same")(x)
        x = norm.activation()(norm.layer(**options)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(10)(x)
    model = keras.Model(inputs, x, name="network")
    return randomize_weights(classifiers.with_float32_logits(model))


def export_model(model, name, folder):
    config = make_config(workdir=str(folder), export_format=name)
    return export.export_classifier(config, model, ["a", "b"])


def make_images(*shape):
    generator = np.random.default_rng(3)
    return generator.uniform(-1.0, 1.0, shape).astype("float32")


def run_export(name, folder, x):
    path = folder / "export" / name / formats.FORMATS[name].file
    return formats.FORMATS[name].load(str(path))(x)["logits"]
