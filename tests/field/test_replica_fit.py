"""Arguments of `fit` on replicas, compared with Keras on one device."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from keras_norm.training import ReplicaModel
from tests.field import replica_checks

random = np.random.default_rng(0)
ROWS = 13
X = random.normal(size=(ROWS, 5)).astype("float32")
A = random.normal(size=(ROWS, 2)).astype("float32")
B = random.integers(0, 3, ROWS)
IMAGES = random.normal(size=(ROWS, 4, 4, 2)).astype("float32")
PIXELS = random.integers(0, 2, (ROWS, 4, 4))
PER_ROW = random.uniform(0, 3, ROWS).astype("float32")
PER_ROW[:3] = 0
PER_PIXEL = random.uniform(0, 3, (ROWS, 4, 4)).astype("float32")
PER_PIXEL[1] = 0
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(norm=None):
    layers = [keras.layers.Dense(3, name="hidden"), keras.layers.Dense(3)]
    if norm:
        layers.insert(1, keras_norm.get(norm).layer())
    return keras.Sequential([keras.Input((5,)), *layers])


def two_outputs(container):
    x = inputs = keras.Input((5,))
    x = keras.layers.Dense(4)(x)
    a = keras.layers.Dense(2, name="a")(x)
    b = keras.layers.Dense(3, name="b")(x)
    outputs = {"a": a, "b": b} if container is dict else [a, b]
    return keras.Model(inputs, outputs)


def per_pixel(norm=None):
    layers = [keras.layers.Conv2D(3, 1), keras.layers.Conv2D(2, 1)]
    if norm:
        layers.insert(1, keras_norm.get(norm).layer())
    return keras.Sequential([keras.Input((4, 4, 2)), *layers])


TWO = {
    "loss": {"a": "mse", "b": CROSSENTROPY},
    "loss_weights": {"a": 2.0, "b": 0.5},
    "metrics": {"a": ["mae"], "b": ["accuracy"]},
    "weighted_metrics": {"b": ["accuracy"]},
}
ONE = {
    "loss": CROSSENTROPY,
    "metrics": ["accuracy"],
    "weighted_metrics": ["accuracy"],
}
IN_DICT = functools.partial(two_outputs, dict)
IN_LIST = functools.partial(two_outputs, list)
BOTH = {"a": PER_ROW, "b": PER_ROW[::-1].copy()}


def dataset(*tensors):
    return tf.data.Dataset.from_tensor_slices(tensors).batch(8)


# https://github.com/keras-team/keras/issues/12708
# https://github.com/tensorflow/tensorflow/issues/38206
# https://github.com/keras-team/keras/issues/6629
CASES = {
    "dict": (IN_DICT, (X, {"a": A, "b": B}), TWO, {"sample_weight": BOTH}),
    "dict, one array": (
        IN_DICT,
        (X, {"a": A, "b": B}),
        TWO,
        {"sample_weight": PER_ROW},
    ),
    "list": (
        IN_LIST,
        (X, [A, B]),
        {
            "loss": ["mse", CROSSENTROPY],
            "metrics": [["mae"], ["accuracy"]],
        },
        {"sample_weight": [BOTH["a"], BOTH["b"]]},
    ),
    "dataset": (IN_DICT, dataset(X, {"a": A, "b": B}, BOTH), TWO, {}),
    "class_weight": (dense, (X, B), ONE, {"class_weight": {0: 2.0, 2: 0.3}}),
    "per pixel": (
        per_pixel,
        (IMAGES, PIXELS),
        ONE,
        {"sample_weight": PER_PIXEL},
    ),
}
SHORT = ("dict", "dataset", "class_weight", "per pixel")


def cases():
    for name in CASES:
        for num_replicas, num_microbatches in ((2, 1), (1, 4), (4, 2)):
            is_short = num_replicas == 2 and name in SHORT
            marks = [] if is_short else [pytest.mark.long]
            yield pytest.param(
                name, num_replicas, num_microbatches, marks=marks
            )


@functools.cache
def expected(name):
    network, data, compiling, fit = CASES[name]
    return replica_checks.in_keras(network, data, fit=fit, **compiling)


@pytest.mark.parametrize(
    ("name", "num_replicas", "num_microbatches"), list(cases())
)
def test_sample_weights_count_as_on_one_device(
    name, num_replicas, num_microbatches
):
    network, data, compiling, fit = CASES[name]
    ours = replica_checks.on_replicas(
        network,
        data,
        num_replicas,
        fit=fit,
        arguments={"accumulation_steps": num_microbatches},
        **compiling,
    )
    replica_checks.assert_same(ours, expected(name))


def test_sample_weights_by_name_match_a_list_of_outputs():
    _, data, compiling, _ = CASES["list"]
    named = {"a": A, "b": B}
    ours = replica_checks.on_replicas(
        IN_LIST, (X, named), fit={"sample_weight": BOTH}, **compiling
    )
    replica_checks.assert_same(ours, expected("list"))


def test_fit_with_sample_weights_after_evaluate_without():
    def train(model):
        loss = keras.losses.MeanSquaredError("mean_with_sample_weight")
        model.compile(replica_checks.sgd(), loss)
        model.evaluate(X, A, 8, verbose=0)
        history = model.fit(
            X, A, 8, sample_weight=PER_ROW, verbose=0, shuffle=False
        )
        return history.history["loss"]

    def network():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])

    expected = train(network())
    with replica_checks.scope(2):
        model = ReplicaModel(network())
        ours = train(model)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        "sync_bn",
        pytest.param("rbn", marks=pytest.mark.long),
        pytest.param("eval_norm", marks=pytest.mark.long),
    ],
)
def test_examples_without_weight_do_not_count_in_statistics(norm):
    # Row 1 has no weight in any pixel; row 2 is not one whose weights are 0.
    weights = PER_PIXEL.copy()
    weights[2, 0] = 0
    present = np.arange(ROWS) != 1

    def moments(images, pixels, weights):
        keras.utils.set_random_seed(0)
        with replica_checks.scope(1):
            model = ReplicaModel(per_pixel(norm))
            model.compile(keras.optimizers.SGD(0.0), CROSSENTROPY)
        model.fit(
            images, pixels, 16, sample_weight=weights, verbose=0, shuffle=False
        )
        return [v.numpy() for v in model.model.non_trainable_variables]

    ours = moments(IMAGES, PIXELS, weights)
    theirs = moments(IMAGES[present], PIXELS[present], weights[present])
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# https://github.com/keras-team/keras/issues/9940
# https://github.com/keras-team/keras/issues/6405
@pytest.mark.parametrize(
    "num_replicas", [pytest.param(1, marks=pytest.mark.long), 2]
)
def test_compile_applies_frozen_and_unfrozen_layers(num_replicas):
    def train(model, network):
        """Returns weights after training with a frozen layer in between."""
        for is_trainable in (True, False, True):
            network.get_layer("hidden").trainable = is_trainable
            model.compile(replica_checks.sgd(), CROSSENTROPY)
            model.fit(X, B, 8, verbose=0, shuffle=False)
            yield network.get_weights()

    keras.utils.set_random_seed(0)
    network = dense()
    expected = list(train(network, network))
    keras.utils.set_random_seed(0)
    with replica_checks.scope(num_replicas):
        model = ReplicaModel(dense(), ema_decay=0.5, nan_policy="stop")
        ours = list(train(model, model.model))
    for one, other in zip(sum(ours, []), sum(expected, []), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert len(model.step_variables) == 4 + 4
    assert model.guard.bad_flags.shape == (1 + 4,)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_model_without_trainable_weights_does_not_change():
    with replica_checks.scope(2):
        model = ReplicaModel(dense(), clip_global_norm=1.0)
        model.model.trainable = False
        model.compile("adam", CROSSENTROPY)
    before = model.model.get_weights()
    model.fit(X, B, 8, verbose=0)
    for one, other in zip(model.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4)
        self.last = keras.layers.Dense(3)

    def call(self, inputs):
        return self.last(self.hidden(inputs))


def without_input():
    return keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])


# https://github.com/tensorflow/tensorflow/issues/26948
@pytest.mark.parametrize(
    ("network", "num_replicas"),
    [
        (without_input, 2),
        (Subclass, 1),
        pytest.param(Subclass, 2, marks=pytest.mark.long),
    ],
)
def test_network_is_built_from_the_first_batch(network, num_replicas):
    expected = replica_checks.in_keras(network, (X, B), loss=CROSSENTROPY)
    ours = replica_checks.on_replicas(
        network,
        (X, B),
        num_replicas,
        arguments={"nan_policy": "skip"},
        loss=CROSSENTROPY,
    )
    replica_checks.assert_same(ours, expected)
    assert ours[0]["loss"][0] > ours[0]["loss"][1]


def test_layers_with_metrics_raise():
    class Counts(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="counts")
            self.mean = keras.metrics.Mean(name="own")

        def call(self, x):
            return x

    network = keras.Sequential([keras.Input((5,)), Counts()])
    with pytest.raises(ValueError, match="layer=counts with own"):
        ReplicaModel(network)


def test_network_with_a_custom_step_raises():
    class Own(Subclass):
        def train_step(self, data):
            return {}

    with pytest.raises(ValueError, match="model=Own with train_step"):
        ReplicaModel(Own())


@pytest.mark.skipif(
    not hasattr(keras, "RematScope"), reason="Keras 3.8 has no RematScope"
)
@pytest.mark.parametrize("name", ["conv", "norm"])
def test_keras_layers_in_a_remat_scope_raise(name):
    with keras.RematScope(mode="list_of_layers", layer_names=[name]):
        network = keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                keras.layers.Conv2D(3, 3, name="conv"),
                keras_norm.FRN(name="norm"),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
    if name == "conv":
        with pytest.raises(ValueError, match="RematScope.*layer='conv'"):
            ReplicaModel(network)
        return
    kernel = network.get_layer("conv").kernel
    before = keras.ops.convert_to_numpy(kernel)
    model = ReplicaModel(network)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype("float32")
    model.fit(x, np.ones((4, 3), "float32"), verbose=0)
    assert np.abs(keras.ops.convert_to_numpy(kernel) - before).max() > 1e-4
