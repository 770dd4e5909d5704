"""Losses and metrics on replicas equal Keras on one device."""

import functools
import itertools

import keras
import numpy as np
import pytest

from tests.field import replica_checks

random = np.random.default_rng(0)
# Examples of 1 to 7 tokens, 0 is padding; the last batch has 5 examples.
LENGTHS = np.array([7, 1, 2, 7, 1, 1, 3, 2, 6, 1, 2, 2, 5])
TOKENS = random.integers(1, 9, (13, 7)) * (np.arange(7) < LENGTHS[:, None])
NEXT = random.integers(0, 9, (13, 7))
X = random.normal(size=(13, 5)).astype("float32")
Y = random.normal(size=(13, 2)).astype("float32")
PER_ROW = random.uniform(0.1, 3, 13).astype("float32")
PER_TOKEN = random.uniform(0, 3, (13, 7)).astype("float32")

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy
SQUARE = keras.losses.MeanSquaredError
WAYS = {
    "replicas": {"num_replicas": 2},
    "four replicas": {"num_replicas": 4},
    "parts": {"num_replicas": 1, "arguments": {"accumulation_steps": 4}},
    "both": {"num_replicas": 2, "arguments": {"accumulation_steps": 2}},
    "compiled": {
        "num_replicas": 2,
        "arguments": {"accumulation_steps": 2, "xla": True},
    },
}


def per_token():
    """Loss for each token; tokens that are 0 are masked."""
    return keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Embedding(9, 4, mask_zero=True),
            keras.layers.Dense(9, kernel_regularizer="l2"),
        ]
    )


def dense():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])


class Added(keras.layers.Layer):
    """Adds a mean over examples, and a loss per example, which Keras sums."""

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(x), axis=-1))
        return x


def with_added_losses():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(
                4, kernel_regularizer="l2", activity_regularizer="l2"
            ),
            Added(),
            keras.layers.Dense(2),
        ]
    )


def masked_and_not():
    tokens, x = keras.Input((7,)), keras.Input((5,))
    masked = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    masked = keras.layers.Dense(9, name="tokens")(masked)
    return keras.Model(
        [tokens, x], [masked, keras.layers.Dense(2, name="other")(x)]
    )


def mean_of_all(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def sum_of_all(y_true, y_pred):
    return keras.ops.sum(keras.ops.square(y_true - y_pred)) / 10


def per_value(y_true, y_pred):
    return keras.ops.square(y_true - y_pred)


def tokens(reduction="sum_over_batch_size"):
    loss = CROSSENTROPY(from_logits=True, reduction=reduction)
    return {"loss": loss, "metrics": ["accuracy"]}


# Network, data, what compile and fit take.
CASES = {
    "mask": (per_token, (TOKENS, NEXT), tokens(), {}),
    "mask, weights": (
        per_token,
        (TOKENS, NEXT),
        {**tokens(), "weighted_metrics": ["accuracy"]},
        {"sample_weight": PER_TOKEN},
    ),
    "mask, mean_with_sample_weight": (
        per_token,
        (TOKENS, NEXT),
        tokens("mean_with_sample_weight"),
        {"sample_weight": PER_TOKEN},
    ),
    "mask, sum": (per_token, (TOKENS, NEXT), tokens("sum"), {}),
    "mean": (dense, (X, Y), {"loss": SQUARE(reduction="mean")}, {}),
    "sum": (dense, (X, Y), {"loss": SQUARE(reduction="sum")}, {}),
    "sum, weights": (
        dense,
        (X, Y),
        {"loss": SQUARE(reduction="sum")},
        {"sample_weight": PER_ROW},
    ),
    "mean_with_sample_weight": (
        dense,
        (X, Y),
        {
            "loss": SQUARE(reduction="mean_with_sample_weight"),
            "metrics": ["mae"],
            "weighted_metrics": ["mae"],
        },
        {"sample_weight": PER_ROW},
    ),
    "none": (dense, (X, Y), {"loss": SQUARE(reduction=None)}, {}),
    "one number": (
        dense,
        (X, Y),
        {"loss": mean_of_all, "metrics": [mean_of_all, sum_of_all]},
        {},
    ),
    "one sum": (dense, (X, Y), {"loss": sum_of_all}, {}),
    "added": (with_added_losses, (X, Y), {"loss": "mse"}, {}),
    "masked and not": (
        masked_and_not,
        ([TOKENS, X], [NEXT, Y]),
        {
            "loss": [CROSSENTROPY(from_logits=True), "mse"],
            "loss_weights": [1.0, 0.3],
            "metrics": [["accuracy"], ["mae"]],
        },
        {},
    ),
    "every value": (dense, (X, Y), {"loss": per_value}, {}),
}
# The others take long.
SHORT = {
    ("mask", "replicas"),
    ("mask", "parts"),
    ("mask, weights", "replicas"),
    ("sum, weights", "replicas"),
    ("mean_with_sample_weight", "replicas"),
    ("none", "replicas"),
    ("one number", "replicas"),
    ("added", "replicas"),
    ("masked and not", "parts"),
}


def cases():
    for name, way in itertools.product(CASES, WAYS):
        marks = [] if (name, way) in SHORT else [pytest.mark.long]
        yield pytest.param(name, way, marks=marks)


@functools.cache
def expected(name):
    network, data, compiling, fit = CASES[name]
    return replica_checks.in_keras(network, data, fit=fit, **compiling)


# https://github.com/huggingface/transformers/issues/24725
# https://github.com/pytorch/torchtune/pull/1875
@pytest.mark.parametrize(("name", "way"), list(cases()))
def test_losses_equal_one_device(name, way):
    network, data, compiling, fit = CASES[name]
    ours = replica_checks.on_replicas(
        network, data, fit=fit, **WAYS[way], **compiling
    )
    replica_checks.assert_same(ours, expected(name))


def largest(y_true, y_pred):
    return keras.ops.max(keras.ops.abs(y_true - y_pred))


class Whole(keras.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.mean(y_pred)


class Last(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign(largest(y_true, y_pred))


class Largest(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.max(x))
        return x


REFUSED = {
    "one number": ({"loss": largest}, None, "loss `largest`"),
    "dice": ({"loss": "dice"}, None, "loss `dice`"),
    "weighted": ({"loss": mean_of_all}, PER_ROW, "loss `mean_of_all`"),
    "class": ({"loss": Whole(name="own")}, None, "loss `own`"),
    "metric": ({"loss": "mse", "metrics": [largest]}, None, "metric `largest`"),
    "state": (
        {"loss": "mse", "metrics": [Last(name="last")]},
        None,
        "metric `last`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_loss_or_metric_of_the_whole_batch_raises(case):
    compiling, weights, message = REFUSED[case]
    weights = PER_ROW if weights is PER_ROW else None
    with pytest.raises(ValueError, match=message):
        replica_checks.on_replicas(
            dense, (X, Y), fit={"sample_weight": weights}, **compiling
        )


def test_added_loss_of_the_whole_batch_raises():
    def network():
        layers = [keras.layers.Dense(2), Largest()]
        return keras.Sequential([keras.Input((5,)), *layers])

    with pytest.raises(ValueError, match="add_loss"):
        replica_checks.on_replicas(
            network,
            (X, Y),
            num_replicas=1,
            arguments={"accumulation_steps": 2},
            loss="mse",
        )


def test_unsplit_batch_uses_every_loss_of_keras():
    expected = replica_checks.in_keras(dense, (X, Y), loss="dice")
    ours = replica_checks.on_replicas(
        dense, (X, Y), num_replicas=1, loss="dice"
    )
    replica_checks.assert_same(ours, expected)
