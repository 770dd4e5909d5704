"""Tests of drawing boxes on images, and of their part of the report."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from PIL import ImageColor

from recipes.data import input_pipeline
from recipes.detection import visualization
from recipes.detection.coco_metric import Detections
from recipes.detection.visualization import ANNOTATION
from recipes.detection.visualization import CROWD
from recipes.detection.visualization import DETECTION
from recipes.detection.visualization import OUTLINE
from tests.recipes.detection import small_detector


@dataclasses.dataclass(frozen=True)
class Annotation:
    image_id: int
    boxes: np.ndarray
    is_crowd: np.ndarray


def annotate(*boxes, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    crowd = np.zeros(len(boxes)) if crowd is None else crowd
    return Annotation(7, boxes, np.array(crowd, bool))


def detect(*boxes, scores=(), labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes)) if labels is None else labels
    return Detections(boxes, np.array(scores), np.array(labels, np.int64))


# Rows 10 to 30 and columns 20 to 60 of an image of 60 x 80.
BOX = [10.0, 20.0, 30.0, 60.0]


def draw(annotation, detections, value=128, shape=(60, 80, 3), names=("a",)):
    """Returns the pixels, 5 for each of the image, and the caption."""
    image = np.full(shape, value, np.uint8)
    picture, caption = visualization.draw(image, annotation, detections, names)
    return np.asarray(picture), caption


def has_color(pixels, color):
    return (pixels == ImageColor.getrgb(color)).all(-1)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("kind", [ANNOTATION, CROWD, DETECTION])
def test_boxes_are_drawn_at_their_coordinates(kind, value):
    annotation, detections = annotate(), detect()
    if kind == DETECTION:
        detections = detect(BOX, scores=[0.9])
    else:
        annotation = annotate(BOX, crowd=[kind == CROWD])
    pixels, _ = draw(annotation, detections, value)
    assert pixels.shape == (300, 400, 3)
    lines = has_color(pixels, kind)[:, 150]
    # Both edges at both sides of the pixel edge; a label is above the box.
    for edge in (50, 150):
        assert lines[edge - 1] and lines[edge]
    lines = np.flatnonzero(has_color(pixels, kind)[100])
    for edge in (100, 300):
        assert {edge - 1, edge} <= set(lines)
    assert np.abs(lines[:, None] - [100, 300]).min(axis=1).max() <= 4
    # The dark outline separates the line from a bright image.
    beside = pixels[100, [lines.min() - 1, lines.max() + 1]]
    assert has_color(beside, OUTLINE).all()
    assert (pixels[100, 200] == value).all()


def test_detection_is_drawn_inside_the_wider_annotation():
    pixels, _ = draw(annotate(BOX), detect(BOX, scores=[0.9]))
    below = np.flatnonzero(has_color(pixels[:, 200], ANNOTATION))
    inner = np.flatnonzero(has_color(pixels[:, 200], DETECTION))
    assert below.min() < 150 < below.max()
    assert below.min() < inner.max() < below.max()


def test_detections_with_low_scores_are_not_drawn():
    boxes = [[10 * i, 5, 10 * i + 8, 25] for i in range(5)]
    scores = [0.1, 0.5, 0.3, 0.29, 0.8]
    pixels, caption = draw(annotate(BOX), detect(*boxes, scores=scores))
    assert caption == "image 7: 1 annotated, 3 of 5 detections"
    for box, score in zip(boxes, scores, strict=True):
        row = has_color(pixels, DETECTION)[5 * box[2] - 10]
        assert row[25] == row[124] == (score >= 0.3)


def test_labels_of_better_detections_come_first_and_do_not_overlap(monkeypatch):
    drawn = []
    original = visualization.PIL.ImageDraw.ImageDraw.text

    def text(self, place, text, *arguments):
        drawn.append((text, self.textbbox(place, text, arguments[1])))
        return original(self, place, text, *arguments)

    monkeypatch.setattr(visualization.PIL.ImageDraw.ImageDraw, "text", text)
    boxes = [BOX, [12, 22, 30, 60], [40, 70, 50, 80], [0, 0, 60, 80]]
    found = detect(*boxes, scores=[0.5, 0.6, 0.7, 0.9], labels=[0, 1, 1, 0])
    names = ("a$b$", "träé with a very long name")
    pixels, _ = draw(annotate(), found, names=names)
    texts = [text for text, _ in drawn]
    assert texts == ["a$b$ 0.90", "träé with a ve 0.70", "träé with a ve 0.60"]
    for i, (_, box) in enumerate(drawn):
        assert box[0] >= 0 and box[1] >= 0
        assert box[2] <= pixels.shape[1] and box[3] <= pixels.shape[0]
        for _, other in drawn[:i]:
            assert (
                box[0] >= other[2]
                or other[0] >= box[2]
                or (box[1] >= other[3] or other[1] >= box[3])
            )
    drawn.clear()
    many = [[3 * i, 0, 3 * i + 1, 80] for i in range(20)]
    draw(annotate(), detect(*many, scores=np.full(20, 0.5)))
    assert 5 <= len(drawn) <= visualization.MAX_LABELS


@pytest.mark.parametrize(
    ("shape", "size"),
    [((50, 100, 3), (400, 200)), ((400, 100, 1), (130, 520))],
)
def test_images_keep_aspect_ratio_and_colors(shape, size):
    pixels, _ = draw(annotate(), detect(), 90, shape)
    assert pixels.shape == (size[1], size[0], 3) and (pixels == 90).all()


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
    """Records the arguments of `draw`."""
    calls = []

    def draw(*arguments):
        calls.append(arguments)
        return Image.new("RGB", (1, 1)), "<caption>"

    monkeypatch.setattr(visualization, "draw", draw)
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
    page = visualization.render_page(config, data)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Evaluation images"]
    images, annotations, found, names = zip(*drawn, strict=True)
    assert len(images) == page.count("<img") == 12
    ids = [annotation.image_id for annotation in annotations]
    # The last image has no box. The first one and one near the end are drawn.
    assert ids[0] == 1001 and 1001 + 3 * 26 <= ids[-1] < 1001 + 3 * 29
    assert max(np.diff(ids)) <= 9
    assert names[0] == ("category 1", "category 3", "category 18")
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
    # Of three training images, the last has no box.
    assert [len(found.boxes) for _, _, found, _ in drawn] == [0] * 14


def test_classes_are_listed_from_best_to_worst(config, data, drawn):
    classes = {"a < b": 0.25, "not annotated": None, "zebra": 0.5, "ox": 0.0}
    write(config, classes=classes)
    page = visualization.render_page(config, data)
    cells = re.findall("<td>(.*?)</td>", page.split("AP by class")[1])
    assert cells == ["zebra", "50.0%", "a &lt; b", "25.0%", "ox", "0.0%"]
    one = dataclasses.replace(data, num_classes=1)
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
    assert [a.image_id for _, a, _, _ in drawn] == [1001, 1007]
    for image in images:
        image.write_bytes(b"")
    write(config, classes={"category 1": 0.5})
    page = visualization.render_page(config, data)
    assert len(drawn) == 2 and page.startswith("<h2>AP by class</h2>")


def test_page_contains_the_images(config, data):
    write(config)
    page = visualization.render_page(config, data)
    pattern = (
        '<img src="data:image/jpeg;base64,([^"]+)" alt="image 1001: [^"<]+"'
    )
    image = Image.open(
        io.BytesIO(base64.b64decode(re.search(pattern, page)[1]))
    )
    assert image.format == "JPEG" and image.size == (400, 300)
    assert len(page) < 1_500_000
    assert page == visualization.render_page(config, data)
