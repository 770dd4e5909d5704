import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.detection import boxes

# One is empty, one has both edge pairs reversed, and one has one pair reversed.
ODD = [[3, 4, 3, 9], [8, 8, 2, 2], [1, 7, 5, 4]]


def random_boxes(count, seed, extent=50.0):
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(-5, extent, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def intersection(a, b):
    """Computes the intersection of two boxes in float64."""
    sides = [
        min(float(a[i + 2]), float(b[i + 2])) - max(float(a[i]), float(b[i]))
        for i in range(2)
    ]
    return max(sides[0], 0.0) * max(sides[1], 0.0)


def own(box):
    return intersection(box, box)


def table(a, b, entry):
    return np.array([[entry(x, y) for y in b] for x in a])


def test_iou_and_coverage():
    a = np.concatenate([random_boxes(7, 0), np.float32(ODD)])
    b = np.concatenate([random_boxes(5, 1), np.float32(ODD), a[:1]])
    iou = boxes.iou(a, b)
    assert iou.dtype == tf.float32 and iou.shape == (10, 9)
    expected = table(
        a,
        b,
        lambda x, y: (
            intersection(x, y) / max(own(x) + own(y) - intersection(x, y), 1e-9)
        ),
    )
    np.testing.assert_allclose(iou, expected, rtol=1e-5, atol=1e-7)
    assert iou[0, 8] == 1 and 0 < np.count_nonzero(iou) < 35
    expected = table(a, b, lambda x, y: intersection(x, y) / max(own(x), 1e-9))
    np.testing.assert_allclose(
        boxes.coverage(a, b), expected, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        boxes.area(a), [own(box) for box in a], rtol=1e-5
    )


def test_empty_lists_of_boxes():
    some, none = random_boxes(3, 0), np.zeros((0, 4), np.float32)
    assert boxes.iou(some, none).shape == (3, 0)
    assert boxes.iou(none, some).shape == (0, 3)
    assert boxes.coverage(none, some).shape == (0, 3)
    assert boxes.encode(none, none).shape == (0, 4)
    assert boxes.area(none).shape == (0,)


def test_iou_matches_keras():
    a, b = random_boxes(7, 0), random_boxes(5, 1)
    peer = keras.utils.bounding_boxes.compute_iou(a, b, "yxyx")
    np.testing.assert_allclose(boxes.iou(a, b), peer, rtol=1e-5, atol=1e-7)


def centers_and_sides(values):
    values = np.float64(values)
    return (values[..., :2] + values[..., 2:]) / 2, (
        values[..., 2:] - values[..., :2]
    )


def test_encode_and_decode_match_the_formula():
    anchors, targets = random_boxes(9, 2), random_boxes(9, 3)
    deltas = tf.function(boxes.encode)(targets, anchors)
    center, side = centers_and_sides(targets)
    anchor_center, anchor_side = centers_and_sides(anchors)
    expected = np.concatenate(
        [(center - anchor_center) / anchor_side, np.log(side / anchor_side)], 1
    )
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)
    back = tf.function(boxes.decode)(deltas, anchors)
    np.testing.assert_allclose(back, targets, atol=1e-3)


def test_deltas_of_empty_boxes_are_finite():
    anchors = random_boxes(3, 2)
    deltas = boxes.encode(np.float32(ODD), anchors)
    assert np.isfinite(deltas).all()
    assert np.abs(deltas).max() < 30
    assert deltas[0, 2] < -10


@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_decode_accepts_leading_axes_and_limits_the_size(leading):
    anchors = random_boxes(4, 2)
    generator = np.random.default_rng(0)
    deltas = generator.normal(0, 0.3, (*leading, 4, 4)).astype(np.float32)
    deltas[..., 1, 2], deltas[..., 2, 3] = 1000.0, -1000.0
    decoded = boxes.decode(deltas, anchors)
    center, side = centers_and_sides(anchors)
    center = center + deltas[..., :2].astype(np.float64) * side
    growth = np.exp(np.minimum(np.float64(deltas[..., 2:]), 9))
    growth[..., 1, 0] = 1000 / 16
    expected = np.concatenate(
        [center - growth * side / 2, center + growth * side / 2], axis=-1
    )
    assert decoded.dtype == tf.float32
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-3)


def test_clip_keeps_the_part_inside_the_image():
    given = np.float32(
        [[-3, 4, 5, 50], [2, 3, 9, 8], [12, -9, 20, -2], [1, 35, 40, 50]]
    )
    expected = [[0, 4, 5, 30], [2, 3, 9, 8], [10, 0, 10, 0], [1, 30, 10, 30]]
    np.testing.assert_array_equal(boxes.clip(given, 10, 30), expected)
    height, width = tf.constant(10), tf.constant(30)
    np.testing.assert_array_equal(boxes.clip(given, height, width), expected)
