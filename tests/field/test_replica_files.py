"""Callbacks and files of a model on replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_norm.training import ReplicaModel
from tests.field import replica_checks

random = np.random.default_rng(0)
X = random.normal(size=(13, 5)).astype("float32")
Y = random.normal(size=(13, 2)).astype("float32")


def model_of(num_replicas=2, **arguments):
    keras.utils.set_random_seed(0)
    with replica_checks.scope(num_replicas):
        network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        model = ReplicaModel(network, **arguments)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"]
        )
    return model


def fit(model, *callbacks, **options):
    options = {"validation_data": (X, Y), "epochs": 2, **options}
    return model.fit(
        X, Y, 8, verbose=0, shuffle=False, callbacks=list(callbacks), **options
    )


# https://github.com/google-research/maxvit/issues/6
@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_model_checkpoint_saves_the_network(tmp_path, ema_decay):
    model = model_of(ema_decay=ema_decay)
    checkpoint = keras.callbacks.ModelCheckpoint
    fit(
        model,
        checkpoint(tmp_path / "{epoch}_{val_loss:.1f}.keras"),
        checkpoint(tmp_path / "best.keras", save_best_only=True),
        checkpoint(tmp_path / "all.weights.h5", save_weights_only=True),
    )
    assert len(list(tmp_path.glob("2_*.keras"))) == 1
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    assert type(loaded) is keras.Sequential
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6
    )
    loaded.load_weights(tmp_path / "all.weights.h5")
    for ours, theirs in zip(
        loaded.get_weights(), model.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_training_resumes_from_saved_weights(tmp_path):
    path = tmp_path / "some.weights.h5"
    whole = model_of(ema_decay=0.5)
    first = fit(whole, epochs=1).history
    whole.save_weights(path)
    second = fit(whole, epochs=1).history
    resumed = model_of(num_replicas=1, ema_decay=0.5)
    resumed.load_weights(path)
    assert first["loss"] != second["loss"]
    for name, values in fit(resumed, epochs=1).history.items():
        np.testing.assert_allclose(values, second[name], rtol=1e-4)


def test_keras_callbacks_work_as_on_one_device(tmp_path):
    def trained(model):
        callbacks = keras.callbacks
        history = fit(
            model,
            callbacks.EarlyStopping(
                "loss", mode="max", patience=1, restore_best_weights=True
            ),
            callbacks.ReduceLROnPlateau("loss", mode="max", patience=0),
            callbacks.TensorBoard(tmp_path / model.name, histogram_freq=1),
            callbacks.BackupAndRestore(tmp_path / f"{model.name}_backup"),
            epochs=4,
        ).history
        history["learning_rate"] = float(model.optimizer.learning_rate.numpy())
        return history

    model = model_of()
    ours = trained(model)
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    network.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"]
    )
    theirs = trained(network)
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-4)
    for one, other in zip(
        model.model.get_weights(), network.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_single_batches_are_split_over_the_replicas():
    model = model_of()
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    network.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"]
    )
    for _ in range(2):
        ours = model.train_on_batch(X[:7], Y[:7], return_dict=True)
        theirs = network.train_on_batch(X[:7], Y[:7], return_dict=True)
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert float(ours[name]) == pytest.approx(float(value), rel=1e-5)
    ours, theirs = model.test_on_batch(X, Y), network.test_on_batch(X, Y)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(
        model.predict_on_batch(X[:7]),
        network.predict_on_batch(X[:7]),
        atol=1e-6,
    )
    assert model.predict(X, verbose=0).shape == (13, 2)
    assert "Dense" in _summary(model)


def _summary(model):
    lines = []
    model.summary(print_fn=lambda line, *_, **__: lines.append(line))
    return "\n".join(lines)


def test_model_is_rebuilt_from_its_config():
    model = model_of(ema_decay=0.5, clip_norm=1.0)
    again = ReplicaModel.from_config(model.get_config())
    assert again.settings == model.settings
    assert again.model.count_params() == model.model.count_params()


def test_export_uses_the_averages(tmp_path):
    model = model_of(ema_decay=0.5)
    fit(model)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(
        loaded.serve(X), model.predict(X, verbose=0), atol=1e-6
    )
