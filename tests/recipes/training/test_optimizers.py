"""One step of every optimizer against its formula in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from recipes.training import optimizers
from recipes.training import trainer as trainer_lib
from tests.recipes.small_runs import make_config

RATE = 0.1
DECAY = 0.2
NAMES = ["sgd", "lamb", "adamw", "rmsprop"]


def build():
    """Builds a model whose layer names contain names of norm weights."""
    inputs = keras.Input((4,), name="x")
    x = keras.layers.Dense(3, name="beta_gamma_dense")(inputs)
    x = keras_norm.FRN(learned_epsilon="channel", activation="tlu", name="frn")(
        x
    )
    x = keras.layers.Dense(2, name="tau")(x)
    model = keras.Model(inputs, x, name="alphanet")
    generator = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


def gradients(model):
    generator = np.random.default_rng(1)
    return [
        generator.normal(size=weight.shape).astype("float32")
        for weight in model.trainable_variables
    ]


def make(model, name, **flags):
    config = make_config(optimizer=name, weight_decay=DECAY, **flags)
    return optimizers.make_optimizer(config, RATE, model)


def numpy_update(name, weight, gradient):
    """Returns the update of a weight in the first step, without decay."""
    square = np.square(gradient)
    if name == "sgd":
        return RATE * gradient
    if name == "rmsprop":
        return RATE * gradient / np.sqrt(0.1 * square + 1e-7)
    # Bias correction makes the moments after one step exact.
    # Keras' AdamW adds epsilon to the root of the uncorrected second moment.
    epsilon = {"adamw": 1e-7 / np.sqrt(1.0 - 0.999), "lamb": 1e-7}[name]
    update = gradient / (np.sqrt(square) + epsilon)
    if name == "lamb":
        update *= np.linalg.norm(weight) / np.linalg.norm(update)
    return RATE * update


@pytest.mark.parametrize("norm_weight_decay", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_step_matches_numpy(name, norm_weight_decay):
    model = build()
    optimizer = make(model, name, norm_weight_decay=norm_weight_decay)
    weights = model.trainable_variables
    assert {w.name for w in weights} == {
        *("kernel", "bias", "gamma", "beta", "tau", "learned_epsilon")
    }
    before = [w.numpy().astype(np.float64) for w in weights]
    steps = gradients(model)
    optimizer.apply(list(map(keras.ops.convert_to_tensor, steps)), weights)
    for weight, start, gradient in zip(weights, before, steps, strict=True):
        decays = name in ("adamw", "lamb") and (
            norm_weight_decay or weight.name in ("kernel", "bias")
        )
        shrunk = start * (1.0 - RATE * DECAY) if decays else start
        update = numpy_update(name, shrunk, gradient.astype(np.float64))
        np.testing.assert_allclose(
            weight.numpy(), shrunk - update, rtol=1e-5, err_msg=weight.path
        )


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_accumulates(name):
    model = build()
    optimizer = make(model, name, momentum=0.5)
    weights = model.trainable_variables
    before = weights[0].numpy()
    steps = [keras.ops.ones(w.shape) for w in weights]
    optimizer.apply(steps, weights)
    optimizer.apply(steps, weights)
    first = {"sgd": 1.0, "rmsprop": 1.0 / np.sqrt(0.1 + 1e-7)}[name]
    second = {"sgd": 1.0, "rmsprop": 1.0 / np.sqrt(0.19 + 1e-7)}[name]
    expected = before - RATE * (1.5 * first + second)
    np.testing.assert_allclose(weights[0].numpy(), expected, rtol=1e-5)


def test_lamb_updates_zero_weights():
    model = build()
    beta = next(w for w in model.trainable_variables if w.name == "beta")
    beta.assign(np.zeros(beta.shape))
    steps = [keras.ops.ones(w.shape) for w in model.trainable_variables]
    make(model, "lamb").apply(steps, model.trainable_variables)
    np.testing.assert_allclose(beta.numpy(), -RATE, rtol=1e-5)


def test_weights_of_norms_are_excluded_from_weight_decay():
    model = build()
    excluded = trainer_lib.weights_without_decay(model, False)
    names = [w.path for w in excluded]
    assert names == [
        "frn/gamma",
        "frn/beta",
        "frn/learned_epsilon",
        "frn/tau",
    ]
    assert trainer_lib.weights_without_decay(model, True) == []


@pytest.mark.parametrize("name", trainer_lib.DECOUPLED_DECAY)
def test_replicas_exclude_the_same_weights_from_decay(name):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = build()
        optimizer = make(model, name)
        optimizer.build(model.trainable_variables)
    weights = model.trainable_variables
    excluded = {id(w) for w in trainer_lib.weights_without_decay(model, False)}
    before = [w.numpy() for w in weights]
    zeros = [np.zeros(w.shape, "float32") for w in weights]

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply(zeros, weights))

    step()
    for weight, start in zip(weights, before, strict=True):
        expected = (
            start if id(weight) in excluded else start * (1.0 - RATE * DECAY)
        )
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_reloads(name):
    optimizer = make(build(), name)
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (optimizer.weight_decay is None) == (
        name not in trainer_lib.DECOUPLED_DECAY
    )
