"""--activation, from the flag to the network."""

import collections

import keras
import pytest

from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.training import build
from recipes.training import distribution
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import run


def built(**flags):
    """How many layers of each kind the network of a run has."""
    config = make_config(num_replicas=1, **flags)
    trainer = build.build(
        config,
        TASK,
        input_pipeline.make_data(config, TASK),
        distribution.make(config),
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
def test_the_network_has_the_activation_of_the_flag(flags, thresholds):
    counts = built(**flags)
    assert (counts["TLU"] > 0) == thresholds
    assert (counts["ReLU"] > 0) == (not thresholds)


def test_the_model_that_is_left_has_it(tmp_path):
    run(tmp_path, norm="bn", activation="tlu", train_steps=1, mode="train")
    model = keras.saving.load_model(tmp_path / "model.keras")
    kinds = {type(layer).__name__ for layer in model.layers}
    assert {"TLU", "BatchNormalization"} <= kinds and "ReLU" not in kinds


@pytest.mark.parametrize("activation", ["relu", "tlu"])
def test_a_model_out_of_a_file_keeps_its_own(activation):
    with pytest.raises(RecipeError, match="keeps its own") as caught:
        make_config(init_model="m.keras", activation=activation)
    assert f"activation={activation}" in str(caught.value)
    make_config(init_model="m.keras", activation="auto")


def test_another_activation_is_refused():
    with pytest.raises(RecipeError, match="unknown --activation 'gelu'"):
        make_config(activation="gelu")
