"""The flag --activation."""

import collections

import keras
import pytest

from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.training import distribution
from recipes.training import runner
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import run


def count_layers(**flags):
    """Counts the layers of a network by class."""
    config = make_config(**flags)
    trainer = runner.build_trainer(
        config,
        TASK,
        input_pipeline.make_data(config, TASK),
        distribution.make_strategy(config),
    )
    return collections.Counter(
        type(layer).__name__ for layer in trainer.model.layers
    )


@pytest.mark.parametrize(
    ("flags", "thresholds"),
    [
        ({"norm": "frn"}, True),
        ({"norm": "frn", "activation": "auto"}, True),
        ({"norm": "frn", "activation": "relu"}, False),
        ({"norm": "bn"}, False),
        ({"norm": "bn", "activation": "tlu"}, True),
        ({"norm": "rbn", "activation": "relu"}, False),
    ],
)
def test_network_uses_the_activation_flag(flags, thresholds):
    counts = count_layers(**flags)
    assert (counts["TLU"] > 0) == thresholds
    assert (counts["ReLU"] > 0) == (not thresholds)


def test_saved_model_uses_the_activation_flag(tmp_path):
    run(tmp_path, norm="bn", activation="tlu", train_steps=1, mode="train")
    model = keras.saving.load_model(tmp_path / "model.keras")
    kinds = {type(layer).__name__ for layer in model.layers}
    assert {"TLU", "BatchNormalization"} <= kinds and "ReLU" not in kinds


@pytest.mark.parametrize("activation", ["relu", "tlu"])
def test_activation_flag_conflicts_with_init_model(activation):
    with pytest.raises(RecipeError, match="keeps its own") as caught:
        make_config(init_model="m.keras", activation=activation)
    assert f"activation={activation}" in str(caught.value)
    make_config(init_model="m.keras", activation="auto")


def test_unknown_activation_raises_an_error():
    with pytest.raises(RecipeError, match="unknown --activation 'gelu'"):
        make_config(activation="gelu")
