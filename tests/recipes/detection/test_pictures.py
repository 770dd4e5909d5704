"""Which images a report shows, with what, and what it survives."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import PIL.Image
import pytest

from recipes.data import input_pipeline
from recipes.detection import pictures
from recipes.detection import visualization
from tests.recipes.detection import small_detector

NUM_EVAL = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    dataset = small_detector.folder(root / "drawn", 3, NUM_EVAL)
    return input_pipeline.make_data(
        small_detector.make_config(dataset=dataset, global_batch_size=2),
        small_detector.TASK,
    )


@pytest.fixture
def config(tmp_path):
    return small_detector.make_config(workdir=str(tmp_path))


@pytest.fixture
def shown(monkeypatch):
    """What is handed to the drawing: images, annotations, detections, names."""
    calls = []

    def page(*arguments):
        calls.append(arguments)
        return "<img>"

    monkeypatch.setattr(visualization, "page", page)
    return calls


def write(config, rows=(), split="", classes=None):
    path = config.folder / f"{split}predictions.json"
    path.write_text(json.dumps(list(rows)))
    if classes is not None:
        (config.folder / "per_class.json").write_text(json.dumps(classes))


def test_before_an_evaluation_there_is_nothing_to_show(config, made, shown):
    assert pictures.page(config, made) == ""


def test_images_with_boxes_are_shown_evenly(config, made, shown):
    row = {"bbox": [3.0, 4.0, 10.0, 20.0], "category_id": 18, "score": 0.75}
    # The images are numbered from 1001 on, by threes.
    rows = [{"image_id": 1001 + 3 * i, **row} for i in range(NUM_EVAL)]
    write(config, [*rows, {**rows[0], "score": 0.5, "category_id": 1}])
    assert pictures.page(config, made) == "<h2>Evaluation images</h2>\n<img>"
    ((images, annotations, found, names),) = shown
    assert len(images) == len(annotations) == len(found) == 12
    ids = [annotation.image_id for annotation in annotations]
    # The last image has no box; the first and one near the end are there.
    assert ids[0] == 1001 and 1001 + 3 * 26 <= ids[-1] < 1001 + 3 * 29
    assert max(np.diff(ids)) <= 9
    assert names == ("category 1", "category 3", "category 18")
    every = made.source.evaluation.annotations()
    for image, annotation in zip(images, annotations, strict=True):
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        index = (annotation.image_id - 1001) // 3
        np.testing.assert_array_equal(annotation.boxes, every[index].boxes)
        # The rectangle has a color of its own: it is that image.
        ymin, xmin, ymax, xmax = annotation.boxes[-1].astype(int)
        inside = image[ymin + 2 : ymax - 2, xmin + 2 : xmax - 2]
        assert inside.std(axis=(0, 1)).max() < 60 < np.ptp(inside.mean((0, 1)))
    np.testing.assert_array_equal(found[0].boxes, [[4, 3, 24, 13]] * 2)
    np.testing.assert_array_equal(found[0].scores, [0.75, 0.5])
    np.testing.assert_array_equal(found[0].labels, [2, 0])
    assert all(len(each.scores) == 1 for each in found[1:])


def test_training_images_are_shown_where_they_were_evaluated(
    config, made, shown
):
    write(config)
    write(config, split="training_")
    page = pictures.page(config, made)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Evaluation images", "Training images"]
    assert len(shown[1][0]) == 2  # Of three, the last has no box.
    assert [len(found.boxes) for found in shown[1][2]] == [0, 0]


def test_classes_are_listed_the_best_first(config, made, shown):
    classes = {"a < b": 0.25, "none of it": None, "zebra": 0.5, "ox": 0.0}
    write(config, classes=classes)
    page = pictures.page(config, made)
    cells = re.findall("<td>(.*?)</td>", page.split("AP by class")[1])
    assert cells == ["zebra", "50.0%", "a &lt; b", "25.0%", "ox", "0.0%"]


def test_a_single_class_is_not_listed(config, made, shown):
    one = dataclasses.replace(made, num_classes=1)
    write(config, classes={"tree": 0.5})
    assert "AP by class" not in pictures.page(config, one)


def test_what_cannot_be_decoded_is_left_out(config, tmp_path, shown):
    dataset = small_detector.folder(tmp_path / "drawn", 3, 4)
    images = sorted((tmp_path / "drawn" / "val2017").iterdir())
    images[1].write_bytes(b"no image")
    made = input_pipeline.make_data(
        small_detector.make_config(dataset=dataset, global_batch_size=2),
        small_detector.TASK,
    )
    write(config)
    pictures.page(config, made)
    assert [a.image_id for a in shown[0][1]] == [1001, 1007]
    for image in images:
        image.write_bytes(b"")
    write(config, classes={"category 1": 0.5})
    page = pictures.page(config, made)
    assert len(shown) == 1 and page.startswith("<h2>AP by class</h2>")


def test_the_page_holds_a_picture(config, made):
    write(config)
    page = pictures.page(config, made)
    encoded = re.search('src="data:image/jpeg;base64,(.*?)"', page)[1]
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.width == 1600
