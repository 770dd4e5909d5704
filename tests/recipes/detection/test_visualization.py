import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from recipes.detection import visualization
from recipes.detection.coco_metric import Detections


@dataclasses.dataclass(frozen=True)
class Annotation:
    image_id: int
    boxes: np.ndarray
    is_crowd: np.ndarray


def picture(height=60, width=80, value=0):
    return np.full((height, width, 3), value, np.uint8)


def annotate(image_id, boxes, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    crowd = np.zeros(len(boxes)) if crowd is None else crowd
    return Annotation(image_id, boxes, np.array(crowd, bool))


def detect(boxes, scores, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes)) if labels is None else labels
    return Detections(boxes, np.array(scores), np.array(labels, np.int64))


NOTHING = detect([], [])
# Rows 10 to 30 and columns 20 to 60 of a picture of 60 x 80.
BOX = [10.0, 20.0, 30.0, 60.0]


def rectangles(axes, kind):
    return [
        patch
        for patch in axes.patches
        if to_rgb(patch.get_edgecolor()) == to_rgb(visualization.COLORS[kind])
    ]


def edges(patch):
    """`[ymin, xmin, ymax, xmax]`."""
    (x0, y0), (x1, y1) = patch.get_bbox().get_points()
    return [y0, x0, y1, x1]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def pixels(figure):
    if figure.stale:
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def color_at(figure, axes, x, y):
    """The color where the picture has that place."""
    column, row = axes.transData.transform((x, y))
    return pixels(figure)[-1 - int(row), int(column)]


def across(figure, axes, x, y):
    """The colors along a column, around that place."""
    column, row = axes.transData.transform((x, y)).astype(int)
    return pixels(figure)[::-1][row - 12 : row + 13, column]


@pytest.mark.parametrize("value", [0, 255])
def test_the_lines_are_where_the_boxes_are(value):
    images = [picture(value=value), picture(90, 50, value)]
    truths = [annotate(1, BOX), annotate(2, [])]
    found = [NOTHING, detect([40.0, 10.0, 70.0, 25.0], [0.9])]
    figure = visualization.draw(images, truths, found, ("tree",))
    assert edges(rectangles(figure.axes[0], "truth")[0]) == BOX
    assert edges(rectangles(figure.axes[1], "found")[0]) == [40, 10, 70, 25]
    for axes, kind, on, off in (
        (figure.axes[0], "truth", [(40, 10), (20, 20), (60, 20)], (40, 20)),
        (figure.axes[1], "found", [(17, 70), (10, 60), (25, 60)], (17, 60)),
    ):
        for place in on:
            color = np.array(to_rgb(visualization.COLORS[kind])) * 255
            seen = color_at(figure, axes, *place)
            np.testing.assert_allclose(seen, color, atol=40)
        np.testing.assert_array_equal(color_at(figure, axes, *off), [value] * 3)
    # The casing, which parts a line from a light picture.
    assert across(figure, figure.axes[0], 40, 10).max(-1).min() < 110


def test_what_was_found_lies_within_what_is_annotated():
    figure = visualization.draw(
        [picture()], [annotate(1, BOX)], [detect(BOX, [0.9])], ("tree",)
    )
    # Across the lower side: from without to within.
    axes = figure.axes[0]
    seen = across(figure, axes, 40, 30)
    near = {
        kind: np.flatnonzero(
            np.abs(seen - np.array(to_rgb(color)) * 255).max(-1) < 60
        )
        for kind, color in visualization.COLORS.items()
    }
    assert min(near["truth"]) < min(near["found"])
    assert max(near["truth"]) > max(near["found"])


def test_unsure_detections_are_left_out_and_counted():
    boxes = [[10 * i, 5, 10 * i + 8, 25] for i in range(5)]
    found = [detect(boxes, [0.1, 0.5, 0.3, 0.29, 0.8]), detect(BOX, [0.2])]
    truths = [annotate(7, [BOX, BOX]), annotate(123, [])]
    images = [picture(), picture()]
    figure = visualization.draw(images, truths, found, ("tree",))
    first, second = figure.axes
    drawn = [edges(patch) for patch in rectangles(first, "found")]
    # The surest last, on top.
    assert drawn == [boxes[2], boxes[1], boxes[4]]
    assert sorted(texts(first)) == ["0.30", "0.50", "0.80"]
    assert rectangles(second, "found") == []
    assert first.get_title() == "image 7: 2 boxes, 3 detections"
    assert second.get_title() == "image 123: 0 boxes, 0 detections"
    said = "detection with a score of {} or more, written where there is room: "
    assert legend(figure) == ["annotated box", said.format(0.3) + "3 of 6"]
    figure = visualization.draw(
        images, truths, found, ("tree",), min_score=0.15
    )
    assert legend(figure)[-1] == said.format(0.15) + "5 of 6"


def test_crowds_are_dashed():
    truth = annotate(1, [BOX, [0, 0, 50, 70]], [False, True])
    figure = visualization.draw([picture()], [truth], [NOTHING], ("tree",))
    one, crowd = rectangles(figure.axes[0], "truth")
    assert one.get_linestyle() == "-"
    assert crowd.get_linestyle() == visualization.DASHES
    assert legend(figure)[1] == "annotated as a crowd"


def test_classes_are_named_where_there_are_several():
    found = [detect([BOX, [40.0, 5, 50, 30]], [0.9, 0.8], [1, 2])]
    names = ("tree", "a$b$", "a class of a very long name")
    figure = visualization.draw([picture()], [annotate(1, [])], found, names)
    assert texts(figure.axes[0]) == ["a$b$ 0.90", "a class of a … 0.80"]
    pixels(figure)  # A formula would fail to be drawn.
    assert not figure.axes[0].texts[0].get_parse_math()


def is_within(extent, whole):
    low, high = extent.get_points()
    return (low >= whole.p0 - 0.1).all() and (high <= whole.p1 + 0.1).all()


@pytest.mark.parametrize("num_images", [1, 3, 12])
def test_nothing_is_cut_or_covered(num_images):
    generator = np.random.default_rng(0)
    shapes = [(64, 64), (100, 40), (300, 640), (600, 400), (50, 200)]
    images, truths, found = [], [], []
    for i in range(num_images):
        height, width = shapes[i % len(shapes)]
        images.append(picture(height, width, 128))
        corner = generator.uniform(0, 0.9, (40, 2)) * [height, width]
        size = generator.uniform(0.02, 0.1, (40, 2)) * [height, width]
        # Some at every border.
        corner[:2], size[:2] = 0, [height, width]
        corner[2:4, 1] = width - size[2:4, 1]
        boxes = np.concatenate([corner, corner + size], -1)
        truths.append(annotate(100000 + i, boxes))
        found.append(detect(boxes, generator.random(40), np.arange(40) % 2))
    names = ("tree", "a class of a very long name")
    figure = visualization.draw(images, truths, found, names)
    figure.canvas.draw()
    whole = figure.bbox
    assert len(figure.axes) == num_images
    seen = []
    for axes in figure.axes:
        extents = [text.get_window_extent() for text in axes.texts]
        assert 3 <= len(extents) <= visualization.MAX_LABELS
        area = axes.get_window_extent()
        for i, extent in enumerate(extents):
            assert is_within(extent, area)
            assert not extent.count_overlaps(extents[:i])
        seen += [area, axes.title.get_window_extent()]
    seen.append(figure.legends[0].get_window_extent())
    for i, extent in enumerate(seen):
        assert is_within(extent, whole)
        assert not extent.count_overlaps(seen[:i])


def test_pictures_keep_their_sides_and_colors():
    red = picture(50, 100)
    red[..., 0] = 255
    gray = np.full((100, 50, 1), 90, np.uint8)
    truths = [annotate(1, []), annotate(2, [])]
    figure = visualization.draw([red, gray], truths, [NOTHING] * 2, ("tree",))
    for axes, aspect in zip(figure.axes, (0.5, 2.0), strict=True):
        area = axes.get_window_extent()
        assert area.height / area.width == pytest.approx(aspect)
    first, second = figure.axes
    tops = [axes.get_window_extent().y1 for axes in (first, second)]
    assert tops[0] == pytest.approx(tops[1])
    np.testing.assert_array_equal(color_at(figure, first, 50, 25), [255, 0, 0])
    np.testing.assert_array_equal(color_at(figure, second, 25, 50), [90] * 3)


def test_pixels_begin_where_boxes_count_from():
    image = picture()
    image[10:, 20:] = 255
    figure = visualization.draw(
        [image], [annotate(1, [])], [NOTHING], ("tree",)
    )
    for place, value in (
        ((20.3, 40), 255),
        ((19.7, 40), 0),
        ((40, 10.3), 255),
        ((40, 9.7), 0),
    ):
        assert color_at(figure, figure.axes[0], *place)[0] == value


def test_the_page_is_an_image_that_needs_no_file():
    generator = np.random.default_rng(0)
    # As rough as a photo of a meadow, which JPEG does not compress well.
    images = [
        generator.integers(60, 140, (120, 160, 3)).astype(np.uint8)
        for _ in range(12)
    ]
    truths = [annotate(i, BOX) for i in range(12)]
    found = [detect(BOX, [0.5])] * 12
    page = visualization.page(images, truths, found, ("tree",))
    pattern = (
        r'<img src="data:image/jpeg;base64,([^"]+)" alt="12 images [^<>]+>'
    )
    data = base64.b64decode(re.fullmatch(pattern, page)[1])
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    assert image.width == 1600
    assert len(page) < 1_500_000
    assert page == visualization.page(images, truths, found, ("tree",))
    wide = visualization.page(images, truths, found, ("tree",), num_columns=6)
    assert wide != page


def test_columns_and_rows():
    images = [picture()] * 5
    truths = [annotate(i, []) for i in range(5)]
    figure = visualization.draw(
        images, truths, [NOTHING] * 5, ("tree",), num_columns=2
    )
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(place.x0, 3) for place in places}) == 2
    tops = [place.y1 for place in places]
    assert tops == sorted(tops, reverse=True)
    assert len({round(top, 3) for top in tops}) == 3
    # Between rows there is the title and little else, in inches.
    between = (places[0].y0 - places[2].y1) * figure.get_figheight()
    assert 0.2 < between < 0.35


def test_pictures_that_do_not_fit_are_rejected():
    truths = [annotate(1, [])]
    with pytest.raises(ValueError, match="2 images, 1 annotations, 1 detect"):
        visualization.draw([picture()] * 2, truths, [NOTHING], ("tree",))
    with pytest.raises(ValueError, match="0 images"):
        visualization.draw([], [], [], ("tree",))
