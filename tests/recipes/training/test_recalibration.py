"""Tests of `--recalibrate`."""

import json

import keras
import numpy as np
import pytest

from recipes.data import input_pipeline
from recipes.errors import RecipeError
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import run

FLAGS = {
    "norm": "bn",
    "train_steps": 4,
    "learning_rate": 0.1,
    "recalibrate": True,
    "recalibrate_images": 100,
    "save_every_steps": 2,
    "eval_batch_size": 30,
    "keep": 5,
}


def sample():
    """Returns 100 training images as evaluation sees them, evenly spread."""
    data = input_pipeline.make_data(make_config(**FLAGS), TASK)
    images = np.concatenate(
        [
            images.numpy()[weights.numpy() > 0]
            for images, _, weights in data.evaluation(split="train")
        ]
    )
    assert len(images) == data.num_train
    return images[np.arange(100) * len(images) // 100]


def assert_recalibrated(model, images):
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    assert norms
    for layer in norms:
        part = keras.Model(model.input, layer.input)
        values = part(images, training=False).numpy().astype("float64")
        values = values.reshape(-1, values.shape[-1])
        spread = np.sqrt(values.var(0) + layer.epsilon)
        shift = layer.moving_mean.numpy() - values.mean(0)
        assert np.max(np.abs(shift) / spread) < 1e-5
        ratio = layer.moving_variance.numpy() - values.var(0)
        assert np.max(np.abs(ratio) / spread**2) < 1e-5


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_statistics_are_those_of_training_images(tmp_path, ema_decay):
    flags = {**FLAGS, "ema_decay": ema_decay}
    summary, rows = run(tmp_path, **flags)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert_recalibrated(model, sample())
    # The last evaluation and the checkpoint have them too.
    weights = model.get_weights()
    run(tmp_path, **flags, mode="eval")
    evaluated = json.loads((tmp_path / "eval.json").read_text())
    loss = summary["last"]["eval/loss"]
    assert evaluated["eval/loss"] == pytest.approx(loss, rel=1e-6)
    # A run that is resumed before its last step ends with the same model.
    *_, newest = sorted((tmp_path / "checkpoints").glob("step_*.npz"))
    newest.unlink()
    run(tmp_path, **flags)
    resumed = keras.saving.load_model(tmp_path / "model.keras").get_weights()
    for got, expected in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(got, expected)
    if ema_decay is not None:
        # Without the averages, the weights of the last step have their own.
        run(tmp_path, **flags, use_ema=False)
        plain = keras.saving.load_model(tmp_path / "model.keras")
        assert_recalibrated(plain, sample())
        assert any(
            np.any(got != expected)
            for got, expected in zip(plain.get_weights(), weights, strict=True)
        )


def test_norm_without_statistics_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="--recalibrate: no layer.*norm=frn"):
        run(tmp_path, **{**FLAGS, "norm": "frn"})
