import types

import numpy as np
import pytest
import tensorflow as tf

from recipes.detection import preprocessing


def make_config(size, low=1.0, high=1.0, flip=False):
    return types.SimpleNamespace(
        image_size=size,
        scale_jitter_min=low,
        scale_jitter_max=high,
        flip=flip,
    )


def preparation(make, *args, **flags):
    """Returns the preprocessing in a graph with unknown sizes."""
    return tf.function(
        make(make_config(*args, **flags)),
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, None, 3), tf.uint8),
            tf.TensorSpec((None, 4)),
            tf.TensorSpec((2,), tf.int64),
        ],
    )


def run(prepare, image, boxes, seed=0):
    boxes = np.reshape(np.float32(boxes), (-1, 4))
    outputs = prepare(image, boxes, np.array([3, seed], np.int64))
    return [output.numpy() for output in outputs]


def painted(height, width, *boxes):
    """Returns a dark image with one white box per color channel."""
    image = np.full((height, width, 3), 40, np.uint8)
    for channel, (ymin, xmin, ymax, xmax) in enumerate(boxes):
        image[ymin:ymax, xmin:xmax, channel] = 255
    return image


def bright(image, channel):
    """Returns the bounding box of the white pixels in a channel."""
    # Halfway between dark and white.
    rows, columns = np.nonzero(image[..., channel] > 40 / 255)
    return np.array(
        [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    )


def extent(image):
    """Returns the height and width of an image without padding."""
    rows, columns = np.nonzero(np.any(image != 0, axis=-1))
    assert rows.min() == columns.min() == 0
    return rows.max() + 1, columns.max() + 1


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((480, 640), 512, (384, 512)),
        ((640, 480), 512, (512, 384)),
        ((37, 100), 64, (24, 64)),
        ((100, 37), 64, (64, 24)),
        ((5, 5), 64, (64, 64)),
        ((1, 500), 64, (1, 64)),
        ((3, 2), 5, (5, 3)),
    ],
)
def test_scaled_size_of_every_number_type(shape, size, expected):
    kinds = (int, np.int64, lambda side: tf.constant(side, tf.int32))
    for kind in kinds:
        scaled = preprocessing.scaled_size(
            *[kind(side) for side in shape], size
        )
        assert tuple(int(side) for side in scaled) == expected
    sides = tuple(np.array([side, 2 * side]) for side in shape)
    scaled = preprocessing.scaled_size(*sides, size)
    np.testing.assert_array_equal(np.transpose(scaled), [expected] * 2)


@pytest.mark.parametrize("shape", [(48, 75), (75, 48), (20, 31), (64, 64)])
def test_evaluation_shows_the_whole_image_at_the_top_left(shape):
    first, second = (6, 11, 17, 28), (2, 0, 8, 9)
    image = painted(*shape, first, second)
    boxes = np.float32([first, second])
    output, moved, keep = run(
        preparation(preprocessing.evaluation_preprocessing, 64), image, boxes
    )
    assert output.shape == (64, 64, 3) and output.dtype == np.float32
    assert np.abs(output).max() <= 1
    after = preprocessing.scaled_size(*shape, 64)
    assert extent(output) == after
    factors = np.tile(np.divide(after, shape), 2)
    np.testing.assert_allclose(moved, boxes * factors, rtol=1e-6)
    assert keep.dtype == bool and keep.all()
    for channel in range(2):
        np.testing.assert_allclose(
            bright(output, channel), moved[channel], atol=1
        )


def test_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    output, _, _ = run(
        preparation(preprocessing.evaluation_preprocessing, 32), image, []
    )
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, image / 127.5 - 1, atol=1e-5)


def test_padding_is_0_and_pixels_stay_in_range():
    image = np.zeros((10, 40, 3), np.uint8)
    image[:, ::2] = 255
    output, _, _ = run(
        preparation(preprocessing.evaluation_preprocessing, 64), image, []
    )
    assert not output[16:].any()
    assert np.abs(output[:16]).min() > 0
    assert np.abs(output).max() <= 1


def test_downscaling_is_antialiased():
    # One of eight columns is white. Without antialiasing, all or no pixels are.
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, ::8] = 255
    output, _, _ = run(
        preparation(preprocessing.evaluation_preprocessing, 32), image, []
    )
    np.testing.assert_allclose(output, 2 / 8 - 1, atol=0.1)


@pytest.mark.parametrize("shape", [(40, 60), (90, 50), (64, 64)])
@pytest.mark.parametrize(("low", "high"), [(1, 1), (0.3, 0.9), (0.5, 2.5)])
def test_boxes_follow_the_pixels(shape, low, high):
    first, second = (5, 9, 19, 26), (25, 20, 38, 49)
    image = painted(*shape, first, second)
    boxes = np.float32([first, second])
    prepare = preparation(
        preprocessing.training_preprocessing, 64, low, high, flip=True
    )
    outputs, num_seen = [], 0
    for seed in range(24):
        output, moved, keep = run(prepare, image, boxes, seed)
        outputs.append(output)
        height, width = extent(output)
        assert (height, width) == (64, 64) or not output[height:].any()
        assert np.all(moved >= 0)
        assert np.all(moved <= [height, width, height, width])
        for channel in np.flatnonzero(keep):
            np.testing.assert_allclose(
                bright(output, channel), moved[channel], atol=1
            )
            num_seen += 1
        again = run(prepare, image, boxes, seed)
        for one, other in zip((output, moved, keep), again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert num_seen > 20
    distinct = len({output.tobytes() for output in outputs})
    assert distinct == 2 if low == high else distinct > 15


def test_flip_excludes_the_padding():
    # A narrow image is padded at the right, flipped or not.
    image = painted(40, 10, (8, 1, 16, 4))
    prepare = preparation(preprocessing.training_preprocessing, 80, flip=True)
    seen = {0: [], 1: []}
    for seed in range(40):
        output, moved, keep = run(prepare, image, [8, 1, 16, 4], seed)
        assert extent(output) == (80, 20)
        assert not output[:, 20:].any() and keep.all()
        is_mirrored = int(moved[0, 1] > 8)
        expected = [16, 12, 32, 18] if is_mirrored else [16, 2, 32, 8]
        np.testing.assert_allclose(moved, [expected], atol=1e-4)
        np.testing.assert_allclose(bright(output, 0), expected, atol=1)
        seen[is_mirrored].append(seed)
    assert 10 <= len(seen[1]) <= 30
    plain = preparation(preprocessing.training_preprocessing, 80)
    for seed in (seen[1][0], seen[0][0]):
        _, moved, _ = run(plain, image, [8, 1, 16, 4], seed)
        np.testing.assert_allclose(moved, [[16, 2, 32, 8]], atol=1e-4)


def test_scales_and_crops_are_uniform():
    image = np.zeros((50, 50, 3), np.uint8)
    prepare = preparation(preprocessing.training_preprocessing, 40, 0.5, 1.0)
    sides = [extent(run(prepare, image, [], i)[0])[0] for i in range(150)]
    assert min(sides) <= 22 and max(sides) >= 38
    assert np.mean(sides) == pytest.approx(30, abs=2)
    # Four times as large: 31 x 31 possible crops of 10 pixels.
    prepare = preparation(preprocessing.training_preprocessing, 10, 4.0, 4.0)
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:40, :40]
    corners = np.array(
        [run(prepare, image, [], i)[0][0, 0, :2] for i in range(300)]
    )
    corners = np.round((corners + 1) * 127.5)
    for places in corners.T:
        assert (places.min(), places.max()) == (0, 30)
        assert np.mean(places) == pytest.approx(15, abs=1.5)
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.2


def test_flip_is_independent_of_the_scale():
    prepare = preparation(
        preprocessing.training_preprocessing, 64, 0.5, 1.0, flip=True
    )
    image, box = painted(40, 40), [0, 0, 40, 10]
    boxes = np.array([run(prepare, image, box, i)[1][0] for i in range(100)])
    is_mirrored, side = boxes[:, 1] > 0, boxes[:, 2]
    assert abs(np.corrcoef(is_mirrored, side)[0, 1]) < 0.4


def test_barely_visible_boxes_are_dropped():
    image = painted(40, 40)
    boxes = np.float32(
        [
            [10, 10, 30, 30],
            [-9, 0, 10, 10],  # 10 of 19 rows are visible.
            [-11, 0, 10, 10],  # 10 of 21 rows.
            [0, 31, 20, 48],
            [0, 31, 20, 50],
            [5, 5, 7.1, 20],  # More than one pixel at half the size.
            [5, 5, 6.9, 20],  # Less than one pixel.
            [5, 5, 20, 6.9],
            [5, 5, 5, 20],
            [50, 50, 60, 60],
        ]
    )
    expected = [True, True, False, True, False] + [True] + [False] * 4
    for make in (
        preprocessing.evaluation_preprocessing,
        preprocessing.training_preprocessing,
    ):
        _, moved, keep = run(preparation(make, 20), image, boxes)
        np.testing.assert_array_equal(keep, expected)
        np.testing.assert_allclose(moved, np.clip(boxes / 2, 0, 20), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        preprocessing.evaluation_preprocessing,
        preprocessing.training_preprocessing,
    ],
)
def test_boxes_are_clipped_to_the_image_not_to_the_padding(make):
    boxes = np.float32([[10, 10, 24, 30], [10, 10, 38, 30], [21, 0, 40, 40]])
    _, moved, keep = run(preparation(make, 40), painted(20, 40), boxes)
    np.testing.assert_array_equal(keep, [True, False, False])
    np.testing.assert_allclose(moved, np.clip(boxes, 0, [20, 40, 20, 40]))


def test_image_without_boxes():
    prepare = preparation(
        preprocessing.training_preprocessing, 32, 0.5, 2.0, flip=True
    )
    _, boxes, keep = run(prepare, painted(20, 30), [], 1)
    assert boxes.shape == (0, 4) and keep.shape == (0,)
