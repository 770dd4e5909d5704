"""Compares `ReplicaModel.fit` with Keras' `fit` on one device."""

import keras
import numpy as np
import tensorflow as tf

from keras_norm.training import ReplicaModel


def scope(num_replicas):
    """Returns the scope of a strategy over logical CPU devices."""
    devices = [f"CPU:{index}" for index in range(num_replicas)]
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, reduction).scope()


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def in_keras(network, data, epochs=2, batch_size=8, fit=None, **compiling):
    """Returns logs, evaluation and weights of Keras on one device."""
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(sgd(), **compiling)
    return results(model, model, data, epochs, batch_size, fit or {})


def on_replicas(
    network,
    data,
    num_replicas=2,
    epochs=2,
    batch_size=8,
    fit=None,
    arguments=None,
    **compiling,
):
    """Returns logs, evaluation and weights of a `ReplicaModel`."""
    keras.utils.set_random_seed(0)
    with scope(num_replicas):
        model = ReplicaModel(network(), **(arguments or {}))
        model.compile(sgd(), **compiling)
    return results(model, model.model, data, epochs, batch_size, fit or {})


def results(model, network, data, epochs, batch_size, fit):
    options = {"batch_size": batch_size}
    if isinstance(data, tf.data.Dataset):
        options, data = {}, (data,)
    history = model.fit(
        *data, epochs=epochs, verbose=0, shuffle=False, **options, **fit
    ).history
    fit = {k: v for k, v in fit.items() if k == "sample_weight"}
    logs = model.evaluate(*data, verbose=0, return_dict=True, **options, **fit)
    return history, logs, network.get_weights()


def assert_same(ours, theirs, atol=1e-5):
    """Asserts that logs, evaluation and weights equal Keras'."""
    for i, (one, other) in enumerate(zip(ours[:2], theirs[:2], strict=True)):
        assert set(one) == set(other), i
        for name in one:
            np.testing.assert_allclose(
                one[name], other[name], rtol=1e-4, atol=atol, err_msg=name
            )
    for one, other in zip(ours[2], theirs[2], strict=True):
        np.testing.assert_allclose(one, other, atol=atol)
