import numpy as np
import pytest

from recipes.detection.anchors import Anchors
from recipes.errors import RecipeError


def test_anchors_are_ordered_by_level_row_column_scale_ratio():
    ratios = (0.5, 1.0, 3.0)
    anchors = Anchors(96, 3, 5, size=2.5, num_scales=2, ratios=ratios)
    expected = []
    for level in (3, 4, 5):
        stride = 2**level
        for row in range(96 // stride):
            for column in range(96 // stride):
                for scale in range(2):
                    for ratio in ratios:
                        area = (2.5 * stride * 2 ** (scale / 2)) ** 2
                        width = (area / ratio) ** 0.5
                        height = ratio * width
                        y, x = (row + 0.5) * stride, (column + 0.5) * stride
                        expected.append(
                            [
                                y - height / 2,
                                x - width / 2,
                                y + height / 2,
                                x + width / 2,
                            ]
                        )
    assert anchors.boxes.dtype == np.float32
    np.testing.assert_allclose(anchors.boxes, expected, rtol=1e-5, atol=1e-4)
    assert anchors.num_per_location == 6
    assert list(anchors.levels) == [3, 4, 5]
    assert [anchors.map_size(level) for level in anchors.levels] == [12, 6, 3]
    assert anchors.num_anchors == 6 * (12**2 + 6**2 + 3**2)


def test_default_anchors_match_the_paper():
    anchors = Anchors(1024, 3, 7)
    assert anchors.num_per_location == 9
    assert anchors.num_anchors == 196_416
    sides = np.sqrt(np.prod(anchors.boxes[:, 2:] - anchors.boxes[:, :2], 1))
    assert sides.min() == pytest.approx(32)
    assert sides.max() == pytest.approx(812.7, abs=0.1)


def test_boxes_are_cached_and_read_only():
    anchors = Anchors(64, 3, 4)
    assert anchors.boxes is anchors.boxes
    with pytest.raises(ValueError, match="read-only"):
        anchors.boxes[0] = 0
    assert anchors == Anchors(64, 3, 4) != Anchors(64, 3, 5)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [(100, (64, 128)), (30, (64, 128)), (0, (64, 128)), (200, (192, 256))],
)
def test_image_size_must_be_a_multiple_of_the_stride(size, nearest):
    with pytest.raises(RecipeError) as raised:
        Anchors(size, 3, 6)
    assert str(raised.value) == (
        "--image_size must be a multiple of 64, the stride of the coarsest "
        f"level 6, such as {nearest[0]} or {nearest[1]}. "
        f"Received: image_size={size}"
    )


def test_max_level_below_min_level_is_rejected():
    with pytest.raises(RecipeError, match="max_level=3, min_level=5"):
        Anchors(128, 5, 3)
    assert Anchors(128, 3, 3).num_anchors == 9 * 16**2
