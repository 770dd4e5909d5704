"""Mixup and CutMix against their definitions."""

import numpy as np
import pytest
import tensorflow as tf

from recipes.classification import mixup
from tests.recipes.small_runs import make_config


def seed(number):
    return tf.constant([7, number], tf.int64)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "both"])
def test_labels_are_mixed_like_images(kind):
    flags = {"mixup": 0.5, "cutmix": 1.0}
    if kind != "both":
        flags = {kind: flags[kind]}
    mix = tf.function(mixup.make_mixup(make_config(**flags), 12, 0))
    # Every pixel of image i is i, and its label is i: the mean of a mixed image
    # is the mean of its labels.
    labels = np.arange(12)
    images = np.tile(labels[:, None, None, None], (1, 7, 5, 3))
    weights = (labels != 3).astype(np.float32)
    num_mixed = 0
    for step in range(5):
        batch = images.astype(np.float32), labels, weights
        mixed, targets, kept = mix(tf.constant(step, tf.int64), batch)
        np.testing.assert_array_equal(kept, weights)
        assert targets.dtype == tf.float32 and targets.shape == (12, 12)
        np.testing.assert_allclose(np.sum(targets, 1), 1, rtol=1e-6)
        np.testing.assert_allclose(
            np.mean(mixed, (1, 2, 3)), targets.numpy() @ labels, atol=1e-4
        )
        # The image of weight 0 is not mixed.
        assert targets[3, 3] == 1
        assert not np.delete(targets[:, 3], 3).any()
        num_mixed += np.count_nonzero(np.diag(targets) < 1)
    assert num_mixed > 20


def test_each_batch_uses_either_mixup_or_cutmix():
    mix = tf.function(mixup.make_mixup(make_config(mixup=1, cutmix=1), 8, 0))
    images = np.tile(np.arange(8.0)[:, None, None, None], (1, 8, 8, 1))
    batch = images.astype(np.float32), np.arange(8), np.ones(8, np.float32)
    kinds = set()
    for step in range(12):
        mixed, _, _ = mix(tf.constant(step, tf.int64), batch)
        kinds.add(bool(np.ptp(mixed, (1, 2, 3)).max() > 0))
    assert kinds == {False, True}


def test_workers_and_steps_mix_differently():
    batch = (
        np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype(np.float32),
        np.arange(8),
        np.ones(8, np.float32),
    )
    targets = [
        mixup.make_mixup(make_config(mixup=1.0), 8, pipeline)(
            tf.constant(step, tf.int64), batch
        )[1].numpy()
        for pipeline, step in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0))
    ]
    np.testing.assert_array_equal(targets[0], targets[4])
    distinct = {target.tobytes() for target in targets}
    assert len(distinct) == 4


def test_mixup_is_the_weighted_sum_of_two_images():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 3, 4, 5, 3)).astype(np.float32)
    ratios = np.array([0.0, 0.3, 1.0], np.float32)
    mixed, same = mixup.mix_images(*images, tf.constant(ratios), seed(0))
    expected = [
        r * a + (1 - r) * b for r, a, b in zip(ratios, *images, strict=True)
    ]
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(same, ratios)


def test_cutmix_pastes_one_box_of_the_area():
    height, width = 20, 30
    zeros = tf.zeros((1, height, width, 1))
    for number in range(30):
        ratio = 0.05 + 0.9 * number / 30
        mixed, exact = mixup.paste_boxes(
            zeros, zeros + 1.0, tf.constant([ratio]), seed(number)
        )
        mask = mixed.numpy()[0, :, :, 0]
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, np.outer(rows, columns))
        for line in (rows, columns):
            assert np.count_nonzero(np.diff(line.astype(int))) <= 2
        # Up to rounding, or smaller if the border cuts it off.
        side = np.sqrt(1 - ratio)
        assert rows.sum() <= side * height + 1
        assert columns.sum() <= side * width + 1
        assert float(exact[0]) == pytest.approx(1 - mask.mean(), abs=1e-6)


def test_cutmix_boxes_are_uniformly_placed():
    number = 4000
    zeros = tf.zeros((number, 8, 8, 1))
    ratios = tf.fill((number,), 0.75)
    mixed, exact = mixup.paste_boxes(zeros, zeros + 1.0, ratios, seed(0))
    # A box of half the side covers the center of the image most often, and by
    # symmetry both halves equally.
    counts = mixed.numpy()[..., 0].mean(0)
    np.testing.assert_allclose(counts, counts[::-1], atol=0.03)
    np.testing.assert_allclose(counts, counts[:, ::-1], atol=0.03)
    np.testing.assert_allclose(counts, counts.T, atol=0.03)
    assert counts[3:5, 3:5].min() > counts[0, 0]
    # Cut off at the border, half of the side is 7/16 on average.
    assert 1 - float(tf.reduce_mean(exact)) == pytest.approx(0.19, abs=0.01)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 5.0])
def test_ratios_follow_the_beta_distribution(alpha):
    draws = mixup.draw_beta(alpha, (20_000,), seed(0)).numpy()
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    expected = np.random.default_rng(0).beta(alpha, alpha, 20_000)
    quantiles = np.linspace(0.1, 0.9, 9)
    # Around the median, the distribution of a small alpha jumps from 0 to 1.
    quantiles = quantiles[quantiles != 0.5]
    np.testing.assert_allclose(
        np.quantile(draws, quantiles),
        np.quantile(expected, quantiles),
        atol=0.03,
    )
