"""Checkpoints from before the default group count changed."""

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.training import ReplicaModel
from recipes.training.checkpoints import TrainingState
from tests.assertions import assert_allclose
from tests.assertions import to_numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="recipes run on TensorFlow"
)


def trainer():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 16)),
            keras_norm.GroupNormalization(name="norm"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = ReplicaModel(network)
    model.compile(optimizer="sgd", loss="mse")
    return model


@pytest.mark.parametrize(("version", "groups"), [("0.1.0", 4), (None, 16)])
def test_checkpoint_keeps_its_group_count(version, groups):
    model = trainer()
    state = TrainingState(model)
    state.write(state.read(), version)
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 16)).astype("float32")
    expected = keras.layers.GroupNormalization(groups)(x)
    assert_allclose(
        model.model.get_layer("norm")(x),
        to_numpy(expected),
        rtol=1e-4,
        atol=1e-5,
    )
