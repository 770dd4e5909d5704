"""A trained network that the tests of calibration share."""

import keras
import pytest
import sklearn.datasets

import keras_norm
from tests.calibration.digits import residual_network


@pytest.fixture(scope="session")
def trained():
    """A trained network, 256 unlabeled digits, and labeled test digits."""
    keras.utils.set_random_seed(0)
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32")
    model = residual_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(images[:1200], labels[:1200], 64, epochs=4, verbose=0)
    model, _ = keras_norm.recalibrate(model, images[:1200])
    return model, images[:256], (images[1200:], labels[1200:])
