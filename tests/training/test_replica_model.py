"""Training with `fit` on two and four replicas equals one device."""

import functools
import itertools
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from keras_norm.training import NonFiniteError
from keras_norm.training import ReplicaModel

CLASSES = 5
BATCH = 16


def scope(num_replicas):
    devices = [f"CPU:{index}" for index in range(num_replicas)]
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, reduction).scope()


def examples(size):
    random = np.random.default_rng(0)
    x = random.normal(size=(size, 6, 6, 3)).astype("float32")
    return x, random.integers(0, CLASSES, size)


def network(norm):
    norm = keras_norm.get(norm) if isinstance(norm, str) else norm
    x = inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(
        6, 3, use_bias=False, kernel_regularizer=keras.regularizers.L2(1e-2)
    )(x)
    x = norm.activation()(norm.layer()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))


def sgd():
    return keras.optimizers.SGD(0.3, momentum=0.9)


def adamw():
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "tau"])
    return optimizer


# Name: optimizer, size of the dataset, dtype policy, arguments of the model and
# of compile.
SETTINGS = {
    "plain": (sgd, 32, "float32", {}, {}),
    "clip_norm": (sgd, 32, "float32", {"clip_norm": 0.1}, {}),
    "clip_global_norm": (sgd, 32, "float32", {"clip_global_norm": 0.1}, {}),
    "clip_value": (sgd, 32, "float32", {"clip_value": 0.01}, {}),
    "clipnorm of the optimizer": (
        lambda: keras.optimizers.SGD(0.3, clipnorm=0.1),
        32,
        "float32",
        {},
        {},
    ),
    "uneven last batch": (sgd, 16 + 7, "float32", {}, {}),
    "uneven first batch": (sgd, 11, "float32", {}, {}),
    "empty batches": (sgd, 16 + 1, "float32", {}, {}),
    "steps_per_execution": (
        sgd,
        64,
        "float32",
        {},
        {"steps_per_execution": 2},
    ),
    "weight decay, averages, nan_policy": (
        adamw,
        32,
        "float32",
        {"ema_decay": 0.5, "nan_policy": "skip"},
        {},
    ),
    "mixed_bfloat16": (sgd, 32, "mixed_bfloat16", {}, {}),
    "mixed_float16": (sgd, 32, "mixed_float16", {}, {}),
}


@functools.cache
def train(num_replicas, norm, setting):
    """Returns losses, weights and an evaluation after two epochs."""
    optimizer, size, policy, arguments, compiling = SETTINGS[setting]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    x, y = examples(size)
    with scope(num_replicas):
        model = ReplicaModel(network(norm), **arguments)
        model.compile(
            optimizer(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            **compiling,
        )
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(
        BATCH, drop_remainder=size % BATCH == 0
    )
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False).history
    evaluated = model.evaluate(batches, verbose=0, return_dict=True)
    weights = [w.numpy() for w in model.variables]
    return history, weights, evaluated


# Each setting once; gradients are clipped after they are summed over replicas,
# and `test_one_device_equals_keras` tests every way to clip.
SHORT = {
    ("clip_global_norm", "frn", 4),
    ("clipnorm of the optimizer", "frn", 2),
    ("uneven first batch", "frn", 2),
    ("uneven last batch", "sync_bn", 2),
    ("empty batches", "frn", 2),
    ("empty batches", "sync_bn", 4),
    ("steps_per_execution", "frn", 2),
    ("weight decay, averages, nan_policy", "frn", 2),
    ("mixed_float16", "frn", 2),
    ("mixed_bfloat16", "sync_bn", 2),
}


def cases():
    """Yields every setting, norm and number of replicas; most are slow."""
    for case in itertools.product(SETTINGS, ("frn", "sync_bn"), (2, 4)):
        marks = [] if case in SHORT else [pytest.mark.long]
        yield pytest.param(*case, marks=marks)


@pytest.mark.parametrize(("setting", "norm", "num_replicas"), list(cases()))
def test_replicas_equal_one_device(setting, norm, num_replicas):
    rounding = 5e-3 if "mixed" in setting else 1e-6
    history, weights, evaluated = train(num_replicas, norm, setting)
    expected_history, expected, expected_evaluated = train(1, norm, setting)
    assert set(history) == {"loss", "accuracy"}
    # A rounding may turn a prediction, which counts in steps.
    for key in ("loss",) if "mixed" in setting else history:
        np.testing.assert_allclose(
            history[key], expected_history[key], atol=rounding
        )
        assert evaluated[key] == pytest.approx(
            expected_evaluated[key], abs=rounding
        )
    assert not np.allclose(expected_history["loss"][0], history["loss"][1])
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=10 * rounding)


# Arguments of Keras on one device, where its clipping is correct.
IN_KERAS = {
    "plain": sgd,
    "uneven last batch": sgd,
    "clip_norm": lambda: keras.optimizers.SGD(0.3, 0.9, clipnorm=0.1),
    "clip_global_norm": lambda: keras.optimizers.SGD(
        0.3, 0.9, global_clipnorm=0.1
    ),
    "clip_value": lambda: keras.optimizers.SGD(0.3, 0.9, clipvalue=0.01),
    "clipnorm of the optimizer": SETTINGS["clipnorm of the optimizer"][0],
}


@pytest.mark.parametrize("setting", IN_KERAS)
def test_one_device_equals_keras(setting):
    size = SETTINGS[setting][1]
    history, _, evaluated = train(1, "frn", setting)
    keras.utils.set_random_seed(0)
    x, y = examples(size)
    model = network("frn")
    model.compile(
        IN_KERAS[setting](),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    expected = model.fit(batches, epochs=2, verbose=0, shuffle=False).history
    for key in history:
        np.testing.assert_allclose(history[key], expected[key], rtol=1e-5)
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    assert evaluated == pytest.approx(expected, rel=1e-5)


@functools.cache
def gradients_of(num_replicas, size=32, norm="frn", **arguments):
    """Returns the change after one step with rate 1, the negative gradient."""
    keras.utils.set_random_seed(0)
    x, y = examples(size)
    with scope(num_replicas):
        model = ReplicaModel(network(norm), **arguments)
        before = [w.numpy() for w in model.model.weights]
        model.compile(
            keras.optimizers.SGD(1.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    model.fit(
        x,
        y,
        batch_size=size,
        verbose=0,
        shuffle=False,
    )
    after = [w.numpy() for w in model.model.weights]
    return [a - b for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize(
    "num_replicas",
    [2, *(pytest.param(num, marks=pytest.mark.long) for num in (1, 4))],
)
@pytest.mark.parametrize(
    "arguments", [{"accumulation_steps": 4}, {"xla": True}]
)
def test_accumulation_and_xla_give_the_same_gradients(num_replicas, arguments):
    expected = gradients_of(1)
    for ours, theirs in zip(
        gradients_of(num_replicas, **arguments), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_synchronized_statistics_are_computed_per_microbatch():
    # Two replicas, two parts: the parts of both replicas are one batch.
    parts = gradients_of(2, norm="sync_bn", accumulation_steps=2)
    whole = gradients_of(2, norm="sync_bn")
    assert all(np.isfinite(part).all() for part in parts)
    assert not np.allclose(parts[0], whole[0], atol=1e-6)


@pytest.mark.parametrize(
    "norm",
    [
        "eval_norm",
        *(
            pytest.param(norm, marks=pytest.mark.long)
            for norm in ("bn", "brn", "rbn")
        ),
    ],
)
def test_statistics_are_averaged_under_xla(norm):
    plain = gradients_of(2, norm=norm)
    compiled = gradients_of(2, norm=norm, xla=True)
    for ours, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_synchronized_layers_raise_under_xla():
    with scope(2), pytest.raises(ValueError, match="batch_norm.* xla=True"):
        ReplicaModel(network("sync_bn"), xla=True)


def test_keras_batch_norm_agrees_on_every_replica():
    def plain(name=None):
        return keras.layers.BatchNormalization(momentum=0.5, name=name)

    class Plain:
        layer = staticmethod(plain)
        activation = staticmethod(keras.layers.ReLU)

    keras.utils.set_random_seed(0)
    x, y = examples(32)
    with scope(2):
        model = ReplicaModel(network(Plain))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    mean = model.model.layers[2].moving_mean.value
    first, second = (part.numpy() for part in mean.values)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0


@pytest.mark.parametrize(
    ("norm", "num_replicas"),
    [("bn", 1), ("rbn", 1), ("sync_bn", 2), ("frn", 2)],
)
def test_padding_does_not_change_results(norm, num_replicas):
    class Weighted(ReplicaModel):
        """Divides by the sum of the weights."""

        def part_size(self, part):
            return tf.reduce_sum(part.weights)

        def part_loss(self, x, y, y_pred, weights):
            losses = keras.losses.sparse_categorical_crossentropy(
                y, y_pred, from_logits=True
            )
            total = tf.reduce_sum(losses * weights)
            return tf.math.divide_no_nan(total, tf.reduce_sum(weights)), {}

    def weights_after(x, y, weights):
        keras.utils.set_random_seed(0)
        with scope(num_replicas):
            model = Weighted(network(norm))
            model.compile(keras.optimizers.SGD(1.0))
        data = tf.data.Dataset.from_tensors((x, y, weights))
        model.fit(data, verbose=0, shuffle=False)
        return [w.numpy() for w in model.model.weights]

    x, y = examples(8)
    # One of two replicas has nothing but padding in the second case.
    cases = [1, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]
    for present in cases[:num_replicas]:
        present = np.array(present, "float32")
        kept = present > 0
        size = int(kept.sum())
        expected = weights_after(x[kept], y[kept], np.ones(size, "float32"))
        padded = np.where(kept[:, None, None, None], x, 100.0)
        ours = weights_after(padded.astype("float32"), y, present)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


class LastMean(keras.layers.Layer):
    """Stores the mean of its last batch on each replica."""

    def build(self, shape):
        self.last = self.add_weight(
            shape=(shape[-1],), initializer="zeros", trainable=False
        )

    def call(self, x):
        self.last.assign(keras.ops.mean(x, axis=0))
        return x


def test_state_is_averaged_by_examples_with_weight():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    # One replica has four examples with weights, the other one has one.
    weights = np.array([0.5, 2, 1, 3, 0, 2, 0, 0], "float32")
    with scope(2):
        layers = [keras.Input((3,)), LastMean(), keras.layers.Dense(1)]
        model = ReplicaModel(keras.Sequential(layers))
        model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, x[:, :1], 8, sample_weight=weights, verbose=0, shuffle=False)
    expected = (4 * x[:4].mean(axis=0) + x[4:].mean(axis=0)) / 5
    last = model.model.layers[0].last.value
    for local in last.values:
        np.testing.assert_allclose(local.numpy(), expected, atol=1e-6)


def test_averages_follow_their_formula_and_are_evaluated():
    keras.utils.set_random_seed(0)
    x, y = examples(64)
    with scope(2):
        model = ReplicaModel(network("bn"), ema_decay=0.8)
        model.compile(
            sgd(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    expected = [v.numpy() for v in model.averages.variables]
    assert any(v.name == "moving_mean" for v in model.averages.variables)
    for step in range(4):
        share = slice(16 * step, 16 * step + 16)
        model.fit(x[share], y[share], batch_size=16, verbose=0)
        decay = min(0.8, (2 + step) / (11 + step))
        expected = [
            decay * old + (1 - decay) * v.numpy()
            for old, v in zip(expected, model.averages.variables, strict=True)
        ]
    for average, value in zip(model.averages.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, atol=1e-6)
    loss = model.evaluate(x, y, verbose=0)
    raw = [v.numpy() for v in model.model.variables]
    with model.averaged():
        logits = model.model(x, training=False)
        losses = keras.losses.sparse_categorical_crossentropy(
            y, logits, from_logits=True
        )
        penalty = float(tf.add_n(model.model.losses))
    expected_loss = float(tf.reduce_mean(losses)) + penalty
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for variable, value in zip(model.model.variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def poisoned(policy, num_replicas=2, dtype="float32"):
    """Trains for three steps, the second with a NaN in one image."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    x, y = examples(48)
    x[20] = np.nan
    with scope(num_replicas):
        model = ReplicaModel(network("frn"), nan_policy=policy)
        model.compile(
            sgd(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    snapshots = []
    for begin in (0, 16, 32):
        share = slice(begin, begin + 16)
        stops = policy == "stop" and begin > 0
        with pytest.raises(NonFiniteError) if stops else nullcontext():
            model.fit(x[share], y[share], batch_size=16, verbose=0)
        snapshots.append([w.numpy() for w in model.model.weights])
    return model, snapshots


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_nonfinite_step_is_skipped_and_counted():
    model, (first, second, third) = poisoned("skip")
    assert equal(first, second) and not equal(second, third)
    assert all(np.isfinite(weight).all() for weight in third)
    assert int(model.guard.skipped.numpy()) == 1
    model.raise_if_not_finite()


def test_nonfinite_step_stops_updates_and_names_variables():
    model, (first, second, third) = poisoned("stop")
    assert equal(first, second) and equal(second, third)
    with pytest.raises(NonFiniteError, match="the loss and .* at step 2") as e:
        model.raise_if_not_finite()
    assert e.value.step == 2
    assert any("kernel" in name for name in e.value.names)


def test_without_a_policy_weights_become_nan_as_in_keras():
    _, (_, second, _) = poisoned(None)
    assert any(np.isnan(weight).any() for weight in second)


def test_overflow_halves_the_loss_scale_and_is_not_counted():
    keras.config.set_dtype_policy("mixed_float16")
    x, y = examples(16)
    with scope(2):
        model = ReplicaModel(network("frn"), nan_policy="stop")
        model.compile(
            sgd(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.guard.loss_scale.assign(2.0**40)
    before = [w.numpy() for w in model.model.weights]
    model.fit(x, y, batch_size=16, verbose=0)
    assert float(model.guard.loss_scale.numpy()) == 2.0**39
    assert equal(before, [w.numpy() for w in model.model.weights])
    assert int(model.guard.skipped.numpy()) == 0
    model.guard.loss_scale.assign(2.0**10)
    model.guard.good_steps.assign(1999)
    model.fit(x, y, batch_size=16, verbose=0)
    assert float(model.guard.loss_scale.numpy()) == 2.0**11
    assert not equal(before, [w.numpy() for w in model.model.weights])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accumulation_steps": 0}, "accumulation_steps=0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"nan_policy": "ignore"}, "nan_policy='ignore'"),
        ({"clip_norm": -1}, "positive. Received: clip_norm=-1"),
        ({"clip_norm": 1, "clip_value": 2}, "only one of.*clip_value=2"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplicaModel(network("frn"), **arguments)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            keras.optimizers.SGD(gradient_accumulation_steps=2),
            "Pass `accumulation_steps`",
        ),
        (
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            "scales the loss itself",
        ),
        (keras.optimizers.SGD(clipvalue=1.0), "clip_value=1.0, clip_norm=2"),
    ],
)
def test_optimizer_that_repeats_work_of_the_step_raises(optimizer, message):
    model = ReplicaModel(network("frn"), clip_norm=2)
    with pytest.raises(ValueError, match=message):
        model.compile(optimizer, "mse")


def test_uneven_microbatches_raise():
    with pytest.raises(
        ValueError, match="accumulation_steps=3, per-replica .*=16"
    ):
        gradients_of(2, accumulation_steps=3)
