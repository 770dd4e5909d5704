"""Tests of drawing boxes on images."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from recipes.data import input_pipeline
from recipes.detection import visualization
from recipes.detection.coco_metric import Detections
from tests.recipes.detection import small_detector


@dataclasses.dataclass(frozen=True)
class Annotation:
    image_id: int
    boxes: np.ndarray
    is_crowd: np.ndarray


def make_image(height=60, width=80, value=0):
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
# Rows 10 to 30 and columns 20 to 60 of an image of 60 x 80.
BOX = [10.0, 20.0, 30.0, 60.0]


def rectangles(axes, kind):
    return [
        patch
        for patch in axes.patches
        if to_rgb(patch.get_edgecolor()) == to_rgb(visualization.COLORS[kind])
    ]


def edges(patch):
    """Returns `[ymin, xmin, ymax, xmax]`."""
    (x0, y0), (x1, y1) = patch.get_bbox().get_points()
    return [y0, x0, y1, x1]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def color_at(figure, axes, x, y):
    """Returns the color drawn at a position of the image."""
    column, row = axes.transData.transform((x, y))
    return pixels(figure)[-1 - int(row), int(column)]


def across(figure, axes, x, y):
    """Returns the colors along a column around a position."""
    column, row = axes.transData.transform((x, y)).astype(int)
    return pixels(figure)[::-1][row - 12 : row + 13, column]


@pytest.mark.parametrize("value", [0, 255])
def test_boxes_are_drawn_at_their_coordinates(value):
    images = [make_image(value=value), make_image(90, 50, value)]
    truths = [annotate(1, BOX), annotate(2, [])]
    found = [NOTHING, detect([40.0, 10.0, 70.0, 25.0], [0.9])]
    figure = visualization.draw(images, truths, found, ("tree",))
    assert edges(rectangles(figure.axes[0], "annotation")[0]) == BOX
    assert edges(rectangles(figure.axes[1], "detection")[0]) == [40, 10, 70, 25]
    for axes, kind, on, off in (
        (
            figure.axes[0],
            "annotation",
            [(40, 10), (20, 20), (60, 20)],
            (40, 20),
        ),
        (figure.axes[1], "detection", [(17, 70), (10, 60), (25, 60)], (17, 60)),
    ):
        for place in on:
            color = np.array(to_rgb(visualization.COLORS[kind])) * 255
            seen = color_at(figure, axes, *place)
            np.testing.assert_allclose(seen, color, atol=40)
        np.testing.assert_array_equal(color_at(figure, axes, *off), [value] * 3)
    # The dark outline separates the line from a bright image.
    assert across(figure, figure.axes[0], 40, 10).max(-1).min() < 110


def test_detection_is_drawn_inside_the_wider_annotation():
    figure = visualization.draw(
        [make_image()], [annotate(1, BOX)], [detect(BOX, [0.9])], ("tree",)
    )
    # Across the lower edge, from outside to inside.
    axes = figure.axes[0]
    seen = across(figure, axes, 40, 30)
    near = {
        kind: np.flatnonzero(
            np.abs(seen - np.array(to_rgb(color)) * 255).max(-1) < 60
        )
        for kind, color in visualization.COLORS.items()
    }
    assert min(near["annotation"]) < min(near["detection"])
    assert max(near["annotation"]) > max(near["detection"])


def test_detections_with_low_scores_are_not_drawn():
    boxes = [[10 * i, 5, 10 * i + 8, 25] for i in range(5)]
    found = [detect(boxes, [0.1, 0.5, 0.3, 0.29, 0.8]), detect(BOX, [0.2])]
    truths = [annotate(7, [BOX, BOX]), annotate(123, [])]
    images = [make_image(), make_image()]
    figure = visualization.draw(images, truths, found, ("tree",))
    first, second = figure.axes
    drawn = [edges(patch) for patch in rectangles(first, "detection")]
    # The highest score is drawn last, on top.
    assert drawn == [boxes[2], boxes[1], boxes[4]]
    assert sorted(texts(first)) == ["0.30", "0.50", "0.80"]
    assert rectangles(second, "detection") == []
    assert first.get_title() == "image 7: 2 boxes, 3 detections"
    assert second.get_title() == "image 123: 0 boxes, 0 detections"
    said = "detection with a score of at least {} (labeled if there is room): "
    assert legend(figure) == ["annotated box", said.format(0.3) + "3 of 6"]
    figure = visualization.draw(
        images, truths, found, ("tree",), min_score=0.15
    )
    assert legend(figure)[-1] == said.format(0.15) + "5 of 6"


def test_crowds_are_dashed():
    truth = annotate(1, [BOX, [0, 0, 50, 70]], [False, True])
    figure = visualization.draw([make_image()], [truth], [NOTHING], ("tree",))
    one, crowd = rectangles(figure.axes[0], "annotation")
    assert one.get_linestyle() == "-"
    assert crowd.get_linestyle() == visualization.CROWD_DASHES
    assert legend(figure)[1] == "annotated as a crowd"


def test_labels_name_the_class_if_there_are_several():
    found = [detect([BOX, [40.0, 5, 50, 30]], [0.9, 0.8], [1, 2])]
    names = ("tree", "a$b$", "a class of a very long name")
    figure = visualization.draw([make_image()], [annotate(1, [])], found, names)
    assert texts(figure.axes[0]) == ["a$b$ 0.90", "a class of a … 0.80"]
    pixels(figure)  # Drawing a formula would fail.
    assert not figure.axes[0].texts[0].get_parse_math()


def is_within(extent, whole):
    low, high = extent.get_points()
    return (low >= whole.p0 - 0.1).all() and (high <= whole.p1 + 0.1).all()


@pytest.mark.parametrize("num_images", [1, 3, 12])
def test_labels_and_titles_neither_overlap_nor_leave_the_figure(num_images):
    generator = np.random.default_rng(0)
    shapes = [(64, 64), (100, 40), (300, 640), (600, 400), (50, 200)]
    images, truths, found = [], [], []
    for i in range(num_images):
        height, width = shapes[i % len(shapes)]
        images.append(make_image(height, width, 128))
        corner = generator.uniform(0, 0.9, (40, 2)) * [height, width]
        size = generator.uniform(0.02, 0.1, (40, 2)) * [height, width]
        # Some at each border.
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


def test_images_keep_aspect_ratio_and_colors():
    red = make_image(50, 100)
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


def test_pixel_edges_match_box_coordinates():
    image = make_image()
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


def test_html_is_a_self_contained_image():
    generator = np.random.default_rng(0)
    # Noise, which JPEG compresses as badly as a photo of a meadow.
    images = [
        generator.integers(60, 140, (120, 160, 3)).astype(np.uint8)
        for _ in range(12)
    ]
    truths = [annotate(i, BOX) for i in range(12)]
    found = [detect(BOX, [0.5])] * 12
    page = visualization.to_html(images, truths, found, ("tree",))
    pattern = (
        r'<img src="data:image/jpeg;base64,([^"]+)" alt="12 images [^<>]+>'
    )
    data = base64.b64decode(re.fullmatch(pattern, page)[1])
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    assert image.width == 1600
    assert len(page) < 1_500_000
    assert page == visualization.to_html(images, truths, found, ("tree",))
    wide = visualization.to_html(
        images, truths, found, ("tree",), num_columns=6
    )
    assert wide != page


def test_images_are_arranged_in_rows_and_columns():
    images = [make_image()] * 5
    truths = [annotate(i, []) for i in range(5)]
    figure = visualization.draw(
        images, truths, [NOTHING] * 5, ("tree",), num_columns=2
    )
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(place.x0, 3) for place in places}) == 2
    tops = [place.y1 for place in places]
    assert tops == sorted(tops, reverse=True)
    assert len({round(top, 3) for top in tops}) == 3
    # The gap between rows holds little more than the title, in inches.
    between = (places[0].y0 - places[2].y1) * figure.get_figheight()
    assert 0.2 < between < 0.35


def test_lengths_that_differ_are_rejected():
    truths = [annotate(1, [])]
    with pytest.raises(ValueError, match="2 images, 1 annotations, 1 detect"):
        visualization.draw([make_image()] * 2, truths, [NOTHING], ("tree",))
    with pytest.raises(ValueError, match="0 images"):
        visualization.draw([], [], [], ("tree",))


# The page of the report.

NUM_EVAL = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    dataset = small_detector.folder(root / "folder", 3, NUM_EVAL)
    return input_pipeline.make_data(
        small_detector.make_config(dataset=dataset, global_batch_size=2),
        small_detector.TASK,
    )


@pytest.fixture
def config(tmp_path):
    return small_detector.make_config(workdir=str(tmp_path))


@pytest.fixture
def drawn(monkeypatch):
    """Records the arguments of `to_html`."""
    calls = []

    def to_html(*arguments):
        calls.append(arguments)
        return "<img>"

    monkeypatch.setattr(visualization, "to_html", to_html)
    return calls


def write(config, rows=(), split="", classes=None):
    path = config.folder / f"{split}predictions.json"
    path.write_text(json.dumps(list(rows)))
    if classes is not None:
        (config.folder / "per_class.json").write_text(json.dumps(classes))


def test_page_is_empty_before_the_first_evaluation(config, data, drawn):
    assert visualization.render_page(config, data) == ""


def test_evenly_spaced_images_with_boxes_are_drawn(config, data, drawn):
    row = {"bbox": [3.0, 4.0, 10.0, 20.0], "category_id": 18, "score": 0.75}
    # The image ids start at 1001 and increase by 3.
    rows = [{"image_id": 1001 + 3 * i, **row} for i in range(NUM_EVAL)]
    write(config, [*rows, {**rows[0], "score": 0.5, "category_id": 1}])
    assert (
        visualization.render_page(config, data)
        == "<h2>Evaluation images</h2>\n<img>"
    )
    ((images, annotations, found, names),) = drawn
    assert len(images) == len(annotations) == len(found) == 12
    ids = [annotation.image_id for annotation in annotations]
    # The last image has no box. The first one and one near the end are drawn.
    assert ids[0] == 1001 and 1001 + 3 * 26 <= ids[-1] < 1001 + 3 * 29
    assert max(np.diff(ids)) <= 9
    assert names == ("category 1", "category 3", "category 18")
    every = data.source.evaluation.annotations()
    for image, annotation in zip(images, annotations, strict=True):
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        index = (annotation.image_id - 1001) // 3
        np.testing.assert_array_equal(annotation.boxes, every[index].boxes)
        # The drawn object has one color, so this is the right image.
        ymin, xmin, ymax, xmax = annotation.boxes[-1].astype(int)
        inside = image[ymin + 2 : ymax - 2, xmin + 2 : xmax - 2]
        assert inside.std(axis=(0, 1)).max() < 60 < np.ptp(inside.mean((0, 1)))
    np.testing.assert_array_equal(found[0].boxes, [[4, 3, 24, 13]] * 2)
    np.testing.assert_array_equal(found[0].scores, [0.75, 0.5])
    np.testing.assert_array_equal(found[0].labels, [2, 0])
    assert all(len(each.scores) == 1 for each in found[1:])


def test_training_images_are_drawn_if_they_were_evaluated(config, data, drawn):
    write(config)
    write(config, split="training_")
    page = visualization.render_page(config, data)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Evaluation images", "Training images"]
    assert len(drawn[1][0]) == 2  # Of three, the last has no box.
    assert [len(found.boxes) for found in drawn[1][2]] == [0, 0]


def test_classes_are_listed_from_best_to_worst(config, data, drawn):
    classes = {"a < b": 0.25, "not annotated": None, "zebra": 0.5, "ox": 0.0}
    write(config, classes=classes)
    page = visualization.render_page(config, data)
    cells = re.findall("<td>(.*?)</td>", page.split("AP by class")[1])
    assert cells == ["zebra", "50.0%", "a &lt; b", "25.0%", "ox", "0.0%"]


def test_single_class_is_not_listed(config, data, drawn):
    one = dataclasses.replace(data, num_classes=1)
    write(config, classes={"tree": 0.5})
    assert "AP by class" not in visualization.render_page(config, one)


def test_undecodable_images_are_omitted(config, tmp_path, drawn):
    dataset = small_detector.folder(tmp_path / "folder", 3, 4)
    images = sorted((tmp_path / "folder" / "val2017").iterdir())
    images[1].write_bytes(b"no image")
    data = input_pipeline.make_data(
        small_detector.make_config(dataset=dataset, global_batch_size=2),
        small_detector.TASK,
    )
    write(config)
    visualization.render_page(config, data)
    assert [a.image_id for a in drawn[0][1]] == [1001, 1007]
    for image in images:
        image.write_bytes(b"")
    write(config, classes={"category 1": 0.5})
    page = visualization.render_page(config, data)
    assert len(drawn) == 1 and page.startswith("<h2>AP by class</h2>")


def test_page_contains_an_image(config, data):
    write(config)
    page = visualization.render_page(config, data)
    encoded = re.search('src="data:image/jpeg;base64,(.*?)"', page)[1]
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.width == 1600
