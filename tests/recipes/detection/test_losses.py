import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.detection import losses

# Ignored, background and two classes.
CLASSES = np.int32([[-2, -1, 0, 2, -1], [1, -2, -2, -1, -1], [-2] * 5])
NUM_CLASSES = 3
LOGITS = (-100, -40, -18, -9, -3, -0.5, 0, 0.5, 3, 9, 18, 40, 100)


def focal_oracle(classes, logits, alpha, gamma):
    """Computes loss and gradient in float64 by the formula."""
    logits = np.float64(logits)
    is_own = classes[..., None] == np.arange(logits.shape[-1])
    sign = np.where(is_own, 1, -1)
    weight = np.where(is_own, alpha, 1 - alpha)
    weight = weight * (classes != -2)[..., None]
    # Probabilities of a correct and of a wrong prediction.
    p = 1 / (1 + np.exp(-sign * logits))
    q = 1 / (1 + np.exp(sign * logits))
    log_p = -np.logaddexp(0, -sign * logits)
    loss = -weight * q**gamma * log_p
    slope = weight * q**gamma * (gamma * p * log_p - q) * sign
    return loss.sum((1, 2)), slope


def random_logits(scale):
    generator = np.random.default_rng(0)
    return generator.normal(0, scale, (3, 5, NUM_CLASSES)).astype(np.float32)


def loss_and_gradient(function, *inputs):
    """Computes a loss in a graph, and its gradient by the last input."""

    @tf.function(autograph=False)
    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs[-1])
            loss = function(*inputs)
        return loss, tape.gradient(loss, inputs[-1])

    return run(*[tf.constant(value) for value in inputs])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_focal_loss(scale, gamma):
    logits = random_logits(scale)
    loss, gradient = loss_and_gradient(
        lambda c, x: losses.focal_loss(c, x, 0.25, gamma), CLASSES, logits
    )
    expected, slope = focal_oracle(CLASSES, logits, 0.25, gamma)
    assert loss.shape == (3,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)
    assert expected[0] > 0 and expected[2] == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label", [-1, 0])
def test_focal_loss_is_finite_for_extreme_logits(label, gamma):
    logits = np.float32(LOGITS).reshape(-1, 1, 1)
    classes = np.full((len(logits), 1), label, np.int32)
    loss, gradient = loss_and_gradient(
        lambda c, x: losses.focal_loss(c, x, 0.3, gamma), classes, logits
    )
    expected, slope = focal_oracle(classes, logits, 0.3, gamma)
    # Subnormal numbers of float32 may be flushed to 0.
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-37)
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=1e-37)


def test_focal_loss_matches_keras_for_moderate_logits():
    logits, known = random_logits(3.0), np.maximum(CLASSES, -1)
    own = np.float32(known[..., None] == np.arange(NUM_CLASSES))
    peer = keras.losses.binary_focal_crossentropy(
        own,
        tf.constant(logits),
        apply_class_balancing=True,
        alpha=0.25,
        gamma=2.0,
        from_logits=True,
    )
    np.testing.assert_allclose(
        losses.focal_loss(known, logits, 0.25, 2.0),
        np.sum(peer, 1) * NUM_CLASSES,
        rtol=1e-4,
    )


def test_huber_loss():
    generator = np.random.default_rng(1)
    deltas, predicted = generator.normal(0, 1, (2, 3, 5, 4)).astype(np.float32)
    # One error equal to delta, and one far above it.
    predicted[0, 2, 0] = deltas[0, 2, 0] + np.float32(0.5)
    predicted[0, 3, 1] = 1e6
    loss, gradient = loss_and_gradient(
        lambda c, t, x: losses.huber_loss(c, t, x, 0.5),
        CLASSES,
        deltas,
        predicted,
    )
    error = np.float64(predicted) - np.float64(deltas)
    size = np.abs(error)
    each = np.where(size <= 0.5, error**2 / 2, 0.5 * (size - 0.25))
    mask = (CLASSES >= 0)[..., None]
    assert loss.shape == (3,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, (each * mask).sum((1, 2)), rtol=1e-5)
    slope = np.clip(error, -0.5, 0.5) * mask
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


def test_count_positives():
    counts = losses.count_positives(tf.constant(CLASSES))
    assert counts.dtype == tf.float32
    np.testing.assert_array_equal(counts, [2, 1, 0])
