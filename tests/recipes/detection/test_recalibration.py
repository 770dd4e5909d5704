"""Tests of `recipes/coco.py --recalibrate`."""

import keras
import numpy as np
import pytest

from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.training import distribution
from recipes.training import recalibration
from recipes.training import runner
from tests.recipes.detection import small_detector
from tests.recipes.training.test_recalibration import assert_recalibrated

NUM_IMAGES = 5


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("recalibration")
    return {
        "dataset": small_detector.folder(root / "drawn"),
        "init_model": small_detector.classifier(root / "start.keras", "bn"),
        "norm": "bn",
        "train_steps": 2,
        "recalibrate": True,
        "recalibrate_images": NUM_IMAGES,
        "eval_batch_size": 4,
    }


def sample(flags):
    """Returns the training images as evaluation sees them, evenly spread."""
    config = small_detector.make_config(**flags)
    data = input_pipeline.make_data(config, small_detector.TASK)
    images = np.concatenate(
        [
            images.numpy()[weights.numpy() > 0]
            for images, _, weights in data.evaluation(split="train")
        ]
    )
    return images[np.arange(NUM_IMAGES) * len(images) // NUM_IMAGES]


# Images that are read in each pass, or stay in memory.
@pytest.mark.parametrize("max_bytes", [0, 2**31])
def test_statistics_are_those_of_training_images(flags, max_bytes, monkeypatch):
    monkeypatch.setattr(recalibration, "MAX_BYTES", max_bytes)
    config = small_detector.make_config(**flags)
    strategy = distribution.make_strategy(config)
    data = input_pipeline.make_data(config, small_detector.TASK)
    trainer = runner.build_trainer(config, small_detector.TASK, data, strategy)
    before = trainer.model.get_weights()
    recalibration.recalibrate(config, data, trainer, strategy)
    assert_recalibrated(trainer.model, sample(flags))
    changed = [
        variable.name
        for variable, old in zip(trainer.model.weights, before, strict=True)
        if np.any(variable.numpy() != old)
    ]
    assert set(changed) == {"moving_mean", "moving_variance"}


@pytest.mark.long
def test_saved_detector_has_the_statistics(tmp_path, flags):
    small_detector.run_only(tmp_path, **flags)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert_recalibrated(model, sample(flags))


def test_detector_without_statistics_is_refused(tmp_path, flags):
    start = small_detector.classifier(tmp_path / "start.keras", "frn")
    flags = {**flags, "norm": "frn", "init_model": start}
    with pytest.raises(RecipeError, match="--recalibrate: no layer.*norm=frn"):
        small_detector.run_only(tmp_path / "run", **flags)
