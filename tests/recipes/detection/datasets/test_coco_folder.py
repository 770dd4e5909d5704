"""Tests of folders with annotations in COCO's format."""

import copy
import re

import numpy as np
import pytest
import tensorflow as tf

from recipes.detection.datasets import coco_folder
from recipes.errors import RecipeError
from tests.recipes.detection.boxes_folder import LAYOUTS
from tests.recipes.detection.boxes_folder import SIZES
from tests.recipes.detection.boxes_folder import box
from tests.recipes.detection.boxes_folder import content
from tests.recipes.detection.boxes_folder import write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_read(tmp_path, layout):
    source = coco_folder.open_folder(write(tmp_path, layout))
    assert source.class_names == ("bee", "cat")
    assert source.category_ids == (3, 7)
    assert source.num_classes == 2
    for split, folder in zip(
        (source.train, source.evaluation), LAYOUTS[layout].values(), strict=True
    ):
        assert split.num_examples == 3
        read = tf.function(split.read)
        for i, image_id in enumerate(SIZES):
            path = tmp_path / folder / f"{image_id}.jpg"
            assert split.name(i) == str(path)
            example = read(tf.constant(i, tf.int64))
            assert example["image"].numpy() == path.read_bytes()


def test_boxes_match_the_annotation_file(tmp_path):
    split = coco_folder.open_folder(write(tmp_path)).evaluation
    annotations = split.annotations()
    assert [a.image_id for a in annotations] == [30, 10, 20]
    assert [(a.height, a.width) for a in annotations] == list(SIZES.values())
    expected = [
        # ymin, xmin, ymax, xmax, label, crowd, area
        [[2.25, 1.5, 9.25, 31.5, 0, 0, 210]],
        [[4, 3, 24, 13, 1, 0, 77.5], [0, 40, 32, 50, 0, 1, 320]],
        [],
    ]
    for i, annotation in enumerate(annotations):
        rows = np.array(expected[i], np.float64).reshape(-1, 7)
        np.testing.assert_allclose(annotation.boxes, rows[:, :4])
        np.testing.assert_array_equal(annotation.labels, rows[:, 4])
        np.testing.assert_array_equal(annotation.is_crowd, rows[:, 5] > 0)
        np.testing.assert_allclose(annotation.areas, rows[:, 6])
        example = split.read(tf.constant(i, tf.int64))
        height, width = SIZES[annotation.image_id]
        np.testing.assert_allclose(
            example["boxes"],
            rows[:, :4] / [height, width, height, width],
            rtol=1e-6,
        )
        np.testing.assert_array_equal(example["labels"], annotation.labels)
        np.testing.assert_array_equal(example["is_crowd"], annotation.is_crowd)
        kinds = [annotation.boxes, annotation.labels, annotation.is_crowd]
        assert [k.dtype for k in kinds] == [np.float32, np.int64, bool]
        assert annotation.areas.dtype == np.float32
        kinds = [example[key] for key in ("boxes", "labels", "is_crowd")]
        assert [k.dtype for k in kinds] == [tf.float32, tf.int64, tf.bool]


def test_empty_boxes_are_dropped_with_a_warning(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        coco_folder.open_folder(write(tmp_path))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "dropped 1 of 4 boxes" in messages[0]
    assert messages[0].endswith("The first is annotation 9.")


def changed(*path, value):
    """Returns the annotations with a value at a path changed.

    A value of None removes the key.
    """
    part = copy.deepcopy(content())
    *path, key = path
    place = part
    for step in path:
        place = place[step]
    if value is None:
        del place[key]
    else:
        place[key] = value
    return part


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (changed("images", value=None), "must contain 'images', a list"),
        (
            changed("annotations", value={}),
            "must contain 'annotations', a list",
        ),
        (changed("images", value=[]), "the list 'images' is empty"),
        (changed("categories", value=[]), "the list 'categories' is empty"),
        (
            changed("images", 1, "height", value=None),
            "the id 10 must have 'height', an integer .* no such key.",
        ),
        (
            changed("images", 1, "width", value=0),
            "id 10 must have 'width', an integer of at least 1. Received: 0.",
        ),
        (
            changed("images", 1, "width", value=51),
            "image 10 should have 51x32 pixels, but .*10.jpg has 50x32",
        ),
        (
            changed("annotations", 2, "id", value="b"),
            "entry 2 .* must have 'id', an integer. Received: 'b'.",
        ),
        (
            changed("images", 0, "id", value=10),
            "id 10 occurs 2 times in 'images'",
        ),
        (
            changed("annotations", 0, "id", value=2),
            "the id 2 occurs 2 times in 'annotations'",
        ),
        (
            changed("categories", 0, "id", value=3),
            "the id 3 occurs 2 times in 'categories'",
        ),
        (
            changed("annotations", 1, "image_id", value=11),
            "annotation 6 has image_id 11, which the file does not list.$",
        ),
        (
            changed("annotations", 1, "category_id", value=4),
            (
                "annotation 6 has category_id 4, which the file does not list. "
                "The categories are 3, 7."
            ),
        ),
        (
            changed("annotations", 1, "bbox", value=[1, 2, 3]),
            (
                "the id 6 must have 'bbox', four finite numbers: x, y, width "
                r"and height. Received: \[1, 2, 3\]."
            ),
        ),
        (
            changed("annotations", 1, "bbox", value=[1, 2, 3, "4"]),
            "must have 'bbox', four finite numbers",
        ),
        (
            changed("annotations", 1, "bbox", value=[1, 2, 3, float("nan")]),
            "must have 'bbox', four finite numbers",
        ),
        (
            changed("annotations", 1, "bbox", value=[9, 2, -3, 4]),
            "annotation 6 of 30.jpg .* whose width or height is negative",
        ),
        (
            changed("annotations", 1, "bbox", value=[49.5, 2, 3, 4]),
            "annotation 6 of 30.jpg .* outside its 48x40 pixels",
        ),
        (
            changed("annotations", 1, "bbox", value=[3, -9, 3, 7]),
            "annotation 6 of 30.jpg .* outside its 48x40 pixels",
        ),
        (
            changed("categories", 0, "name", value="dog"),
            "must have the same categories. They differ in ",
        ),
        (
            changed("images", 2, "file_name", value="x/2.jpg"),
            "lists images that do not exist: .*train2017/x/2.jpg.$",
        ),
        (
            changed("annotations", value=[box(1, 10, [1, 2, 3, 4], iscrowd=1)]),
            "train2017.json has no box of a single object",
        ),
    ],
)
def test_invalid_annotations_are_reported(tmp_path, train, message):
    write(tmp_path, train=train)
    with pytest.raises(RecipeError, match=message) as caught:
        coco_folder.open_folder(tmp_path)
    assert "instances_train2017.json" in str(caught.value)


def test_boxes_just_outside_the_image_are_dropped(tmp_path):
    write(
        tmp_path, train=changed("annotations", 1, "bbox", value=[49, 2, 3, 4])
    )
    split = coco_folder.open_folder(tmp_path).train
    assert [len(a.boxes) for a in split.annotations()] == [0, 2, 0]


def test_evaluation_split_without_boxes_is_an_error(tmp_path):
    write(tmp_path, evaluation=changed("annotations", value=[]))
    with pytest.raises(RecipeError, match="val2017.json has no box"):
        coco_folder.open_folder(tmp_path)


def test_error_counts_missing_images(tmp_path):
    write(tmp_path)
    for i in (10, 20):
        (tmp_path / "val2017" / f"{i}.jpg").unlink()
    with pytest.raises(RecipeError, match="val2017/10.jpg and 1 more of 3.$"):
        coco_folder.open_folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_error_names_a_file_that_is_not_json(tmp_path, text):
    write(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(str(path))):
        coco_folder.open_folder(tmp_path)


def test_error_describes_the_expected_layout(tmp_path):
    with pytest.raises(RecipeError, match="nowhere: the folder does not exist"):
        coco_folder.open_folder(tmp_path / "nowhere")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        RecipeError, match="must contain .* It contains: pictures."
    ):
        coco_folder.open_folder(tmp_path)
    write(tmp_path)
    more = tmp_path / "annotations" / "instances_val2014.json"
    more.write_text("{}")
    with pytest.raises(
        RecipeError, match="instances_val2014.json, instances_val2017.json"
    ):
        coco_folder.open_folder(tmp_path)
