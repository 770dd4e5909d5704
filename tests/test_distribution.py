"""The layers under several replicas, on logical CPU devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_norm import FRN
from keras_norm import RBN
from keras_norm import TLU
from keras_norm import BatchNormalization
from keras_norm import EvalNorm

MAKERS = {
    "frn": lambda: FRN(learned_epsilon=True, activation="tlu"),
    "sync_bn": lambda: BatchNormalization(momentum=0.8, synchronized=True),
    "sync_brn": lambda: BatchNormalization(
        momentum=0.8,
        renorm=True,
        renorm_clipping={"rmax": 1.3, "dmax": 0.5},
        synchronized=True,
    ),
    "sync_eval_norm": lambda: EvalNorm(momentum=0.8, synchronized=True),
    "sync_rbn": lambda: RBN(momentum=0.8, synchronized=True),
    "rbn_group": lambda: RBN(statistics="group", groups=2),
}
ALONE = {
    "bn": lambda: BatchNormalization(momentum=0.8),
    "brn": lambda: BatchNormalization(momentum=0.8, renorm=True),
    "eval_norm": lambda: EvalNorm(momentum=0.8),
    "rbn": lambda: RBN(momentum=0.8),
}


def mirrored(num_replicas):
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(num_replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def build(makers):
    """Builds a model with one branch for each norm, which saves tracing."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    branches = []
    for name, make in makers.items():
        x = keras.layers.Conv2D(4, 3)(inputs)
        norm = make()
        norm.name = name
        branches.append(keras.layers.GlobalAveragePooling2D()(TLU()(norm(x))))
    x = keras.layers.Concatenate()(branches)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def data(steps=4, batch=8):
    generator = np.random.default_rng(0)
    x = generator.normal(1.0, 2.0, (steps * batch, 6, 6, 2))
    # Replicas see unlike shares, so that their own moments disagree.
    x *= np.linspace(0.2, 3.0, len(x))[:, None, None, None]
    y = generator.normal(size=(steps * batch, 3))
    return x.astype("float32"), y.astype("float32")


def train(makers, num_replicas, steps=4, batch=8):
    x, y = data(steps, batch)
    with mirrored(num_replicas).scope():
        model = build(makers)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)
    history = model.fit(dataset, epochs=2, shuffle=False, verbose=0)
    return model, history.history["loss"]


def copies(variable):
    return [np.array(copy) for copy in variable.value.values]


@pytest.mark.parametrize(
    "num_replicas", [2, pytest.param(4, marks=pytest.mark.long)]
)
def test_several_replicas_equal_one_device(num_replicas):
    expected, expected_losses = train(MAKERS, 1)
    model, losses = train(MAKERS, num_replicas)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for ours, theirs in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(
            ours.numpy(),
            theirs.numpy(),
            rtol=1e-4,
            atol=1e-5,
            err_msg=ours.path,
        )


def test_replicas_agree_after_training_and_after_a_reload(tmp_path):
    model, _ = train(ALONE, 2)
    for variable in model.variables:
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
    for name in ALONE:
        layer = model.get_layer(name)
        assert len(layer.non_trainable_variables) >= 2
        assert np.abs(layer.moving_mean.numpy()).max() > 0.01

    x, _ = data()
    expected = model.predict(x, verbose=0, batch_size=8)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        reloaded.predict(x, verbose=0, batch_size=8),
        expected,
        rtol=1e-6,
        atol=1e-6,
    )


def test_unsynchronized_moments_are_the_mean_of_the_replicas():
    strategy = mirrored(2)
    with strategy.scope():
        layer = BatchNormalization(momentum=0.0)
        layer.build((None, 3))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    x[4:] = x[4:] * 3.0 + 5.0
    run(strategy, layer, [x[:4], x[4:]])
    halves = np.stack([x[:4], x[4:]])
    np.testing.assert_allclose(layer.moving_mean.numpy(), x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance.numpy(), halves.var(1).mean(0), rtol=1e-5
    )


@pytest.mark.parametrize("renorm", [False, True])
@pytest.mark.parametrize("synchronized", [False, True])
def test_variance_correction_of_replicas(synchronized, renorm):
    """N counts the values of a batch: of all replicas if synchronized."""
    strategy = mirrored(2)
    with strategy.scope():
        layer = BatchNormalization(
            momentum=0.0,
            renorm=renorm,
            renorm_momentum=0.0,
            synchronized=synchronized,
            variance_correction=True,
        )
        layer.build((None, 3))
    x = np.random.default_rng(0).normal(2.0, size=(8, 3)).astype("float32")
    shares = [x[:5], 3.0 * x[5:]]
    run(strategy, layer, shares)
    if synchronized:
        expected = np.concatenate(shares).var(0, ddof=1)
    else:
        expected = sum(len(s) / 8 * s.var(0, ddof=1) for s in shares)
    for copy in copies(layer.moving_variance):
        np.testing.assert_allclose(copy, expected, rtol=1e-5)


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize("cls", [BatchNormalization, EvalNorm, RBN])
def test_an_empty_share_changes_nothing(cls, synchronized):
    x = np.random.default_rng(0).normal(2.0, 3.0, (5, 4, 3)).astype("float32")
    alone = cls(momentum=0.7)
    expected = keras.ops.convert_to_numpy(alone(x, training=True))
    strategy = mirrored(2)
    with strategy.scope():
        layer = cls(momentum=0.7, synchronized=synchronized)
        layer.build((None, 4, 3))
    outputs = run(strategy, layer, [x, x[:0]])
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-6)
    assert outputs[1].shape == (0, 4, 3)
    for ours, theirs in zip(layer.weights, alone.weights, strict=True):
        for copy in copies(ours):
            np.testing.assert_allclose(copy, theirs.numpy(), rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_masked_and_synchronized_work_together_on_any_axis(axis):
    generator = np.random.default_rng(0)
    x = generator.normal(2.0, 3.0, (6, 5, 3)).astype("float32")
    mask = generator.uniform(size=(6, 5)) < 0.6
    mask[:, 0] = True
    alone = BatchNormalization(momentum=0.7)
    expected = keras.ops.convert_to_numpy(alone(x[mask], training=True))
    shares = x if axis == -1 else np.moveaxis(x, -1, 1)
    strategy = mirrored(2)
    with strategy.scope():
        layer = BatchNormalization(axis=axis, momentum=0.7, synchronized=True)
        layer.build((None, *shares.shape[1:]))
    outputs = run(strategy, layer, np.split(shares, 2), np.split(mask, 2))
    output = np.concatenate(outputs)
    output = output if axis == -1 else np.moveaxis(output, 1, -1)
    np.testing.assert_allclose(output[mask], expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(layer.weights, alone.weights, strict=True):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6
        )


def run(strategy, layer, shares, masks=None):
    """Calls the layer in training, one share a replica; arrays come back."""

    def per_replica(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group]
        )

    @tf.function
    def call(x, mask):
        return strategy.run(
            lambda x, mask: layer(x, mask=mask, training=True), args=(x, mask)
        )

    mask = None if masks is None else per_replica(masks)
    outputs = call(per_replica(shares), mask)
    return [np.array(copy) for copy in outputs.values]
