import functools

import numpy as np
import pytest
import tensorflow as tf

from recipes.detection import label_encoder
from recipes.detection.anchors import Anchors


def oracle(boxes, labels, is_crowd, anchors):
    """Applies the assignment rule box by box in float64."""

    def intersection(a, b):
        height = min(a[2], b[2]) - max(a[0], b[0])
        width = min(a[3], b[3]) - max(a[1], b[1])
        return max(height, 0.0) * max(width, 0.0)

    def area(a):
        return max(a[2] - a[0], 0.0) * max(a[3] - a[1], 0.0)

    boxes, anchors = np.float64(boxes).tolist(), np.float64(anchors).tolist()
    ious = np.zeros((len(anchors), len(boxes)))
    crowded = np.zeros(len(anchors), bool)
    for i, anchor in enumerate(anchors):
        for j, box in enumerate(boxes):
            inside = intersection(anchor, box)
            if is_crowd[j]:
                crowded[i] |= inside >= area(anchor) / 2
            elif inside > 0:
                ious[i, j] = inside / (area(anchor) + area(box) - inside)
    owner = {}
    for i, row in enumerate(ious):
        if row.size and row.max() >= 0.5:
            owner[i] = int(row.argmax())
    forced = {}
    for j in range(len(boxes)):
        i = int(ious[:, j].argmax())
        if ious[i, j] > 0:
            forced.setdefault(i, []).append(j)
    for i, claimants in forced.items():
        owner[i] = max(claimants, key=lambda j, i=i: (ious[i, j], -j))
    classes, deltas = [], np.zeros((len(anchors), 4))
    for i, (y0, x0, y1, x1) in enumerate(anchors):
        most = max(ious[i], default=0)
        is_background = most < 0.4 and not crowded[i]
        classes.append(-1 if is_background else -2)
        if i in owner:
            box = boxes[owner[i]]
            classes[i] = labels[owner[i]]
            deltas[i] = (
                ((box[0] + box[2]) - (y0 + y1)) / 2 / (y1 - y0),
                ((box[1] + box[3]) - (x0 + x1)) / 2 / (x1 - x0),
                np.log((box[2] - box[0]) / (y1 - y0)),
                np.log((box[3] - box[1]) / (x1 - x0)),
            )
    return np.array(classes), deltas


def assign(boxes, labels, is_crowd, anchors):
    """Assigns targets in a graph with an unknown number of boxes."""
    return assigner(len(anchors), label_encoder.BLOCK_SIZE)(
        np.reshape(np.float32(boxes), (-1, 4)),
        np.array(labels, np.int64),
        np.array(is_crowd, bool),
        np.float32(anchors),
    )


@functools.cache
def assigner(num_anchors, block_size):
    del block_size  # Part of the cache key, because the graph depends on it.
    return tf.function(
        label_encoder.assign_targets,
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, 4)),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((None,), tf.bool),
            tf.TensorSpec((num_anchors, 4)),
        ],
    )


def random_image(count, seed, size):
    generator = np.random.default_rng(seed)
    sides = np.exp(generator.uniform(np.log(3), np.log(size), (count, 2)))
    centers = generator.uniform(0, size, (count, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], 1)
    return (
        np.clip(boxes, 0, size).astype(np.float32),
        generator.integers(0, 20, count),
        generator.uniform(size=count) < 0.25,
    )


# Blocks of one box, of three boxes, and of all boxes.
@pytest.mark.parametrize("block_size", [1, 3 * 756, None])
@pytest.mark.parametrize("count", [1, 2, 7, 23])
def test_assignment_matches_the_rule(monkeypatch, count, block_size):
    if block_size is not None:
        monkeypatch.setattr(label_encoder, "BLOCK_SIZE", block_size)
    anchors = Anchors(64, 3, 5).boxes
    assert len(anchors) == 756
    # A box inside several anchors has the same IoU with all of them, and the
    # choice would depend on rounding.
    noise = np.random.default_rng(0).normal(0, 0.3, anchors.shape)
    anchors = anchors + noise.astype(np.float32)
    image = random_image(count, count, 64)
    classes, deltas = assign(*image, anchors)
    assert classes.dtype == tf.int32 and deltas.dtype == tf.float32
    expected, expected_deltas = oracle(*image, anchors)
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_allclose(deltas, expected_deltas, rtol=1e-4, atol=1e-5)
    assert not np.any(deltas.numpy()[expected < 0])
    if count == 23:
        assert {-2, -1} < set(expected.tolist())
        assert len(set(expected.tolist())) > 8


ANCHORS = [[0, 0, 10, 10], [0, 10, 10, 20], [20, 0, 30, 10]]


def test_image_without_boxes_is_background():
    classes, deltas = assign([], [], [], ANCHORS)
    np.testing.assert_array_equal(classes, [-1, -1, -1])
    np.testing.assert_array_equal(deltas, np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("right", "expected"), [(5.01, 4), (4.95, 4), (4.05, 4), (3.9, 4)]
)
def test_box_claims_its_best_anchor_at_any_iou(right, expected):
    classes, _ = assign([[0, 0, 10, right]], [4], [False], ANCHORS)
    np.testing.assert_array_equal(classes, [expected, -1, -1])


@pytest.mark.parametrize(
    ("right", "second"), [(5.01, 4), (4.95, -2), (4.05, -2), (3.95, -1)]
)
def test_other_anchors_follow_the_thresholds(right, second):
    # The first anchor equals the box and is claimed. The second one is wider.
    anchors = [[0, 0, 10, right], [0, 0, 10, 10]]
    classes, _ = assign([[0, 0, 10, right]], [4], [False], anchors)
    np.testing.assert_array_equal(classes, [4, second])


def test_first_of_equal_anchors_is_claimed():
    classes, _ = assign([[0, 8, 10, 12]], [4], [False], ANCHORS)
    np.testing.assert_array_equal(classes, [4, -1, -1])


def test_empty_box_claims_no_anchor():
    classes, deltas = assign(
        [[0, 0, 0, 10], [50, 50, 60, 60]], [4, 5], [False, False], ANCHORS
    )
    np.testing.assert_array_equal(classes, [-1, -1, -1])
    assert not np.any(deltas)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # The larger IoU wins in either order; the first of equal IoUs wins.
        ([[0, 0, 3, 10], [0, 0, 2, 10]], 4),
        ([[0, 0, 2, 10], [0, 0, 3, 10]], 5),
        ([[0, 0, 3, 10], [0, 0, 3, 10]], 4),
        ([[0, 0, 7, 10], [0, 0, 8, 10]], 5),
        ([[0, 0, 8, 10], [0, 0, 8, 10]], 4),
    ],
)
def test_two_boxes_claim_the_same_anchor(boxes, expected):
    classes, _ = assign(boxes, [4, 5], [False, False], ANCHORS)
    np.testing.assert_array_equal(classes, [expected, -1, -1])


@pytest.mark.parametrize("block_size", [1, 1000])
def test_first_of_equal_boxes_gets_other_anchors(monkeypatch, block_size):
    monkeypatch.setattr(label_encoder, "BLOCK_SIZE", block_size)
    anchors = [[0, 0, 10, 10], [0, 0, 10, 9]]
    boxes = [[0, 0, 10, 10]] * 3
    classes, _ = assign(boxes, [4, 5, 6], [False] * 3, anchors)
    np.testing.assert_array_equal(classes, [4, 4])


def test_claim_takes_precedence_over_a_larger_iou():
    # The first box has an IoU of 0.6 with the second anchor, but a better one.
    anchors = [[0, 0, 10, 16], [0, 0, 10, 10]]
    boxes = [[0, 0, 10, 16], [0, 0, 10, 3]]
    classes, deltas = assign(boxes, [4, 5], [False, False], anchors)
    np.testing.assert_array_equal(classes, [4, 5])
    np.testing.assert_allclose(
        deltas, [[0, 0, 0, 0], [0, -0.35, 0, np.log(0.3)]], atol=1e-5
    )


def test_anchors_in_a_crowd_are_ignored():
    crowd, box = [0, 4, 10, 15.1], [0, 0, 10, 10]
    classes, deltas = assign([crowd], [7], [True], ANCHORS)
    np.testing.assert_array_equal(classes, [-2, -2, -1])
    assert not np.any(deltas)
    # Half of the anchor must be covered.
    crowd = [0, 5.1, 10, 15]
    classes, _ = assign([crowd], [7], [True], ANCHORS)
    np.testing.assert_array_equal(classes, [-1, -2, -1])
    # Anchors assigned to a box are not ignored in a crowd.
    classes, _ = assign([crowd, box], [7, 3], [True, False], ANCHORS)
    np.testing.assert_array_equal(classes, [3, -2, -1])
