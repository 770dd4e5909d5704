"""Tests of detection datasets that TFDS has prepared."""

import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.detection.datasets import tfds as tfds_lib
from recipes.errors import RecipeError
from tests import tfds_archives
from tests.recipes import tfds_sets
from tests.recipes.detection import coco_archive

NAME = "tiny_boxes"
# Height and width of the images of all splits, in order.
SIZES = [(40, 56), (24, 48), (60, 32), (50, 70)]
# (ymin, xmin, ymax, xmax, label) in pixels for each image.
OBJECTS = [
    [],
    [(2, 3, 20, 40, 1), (0, 0, 24, 48, 0)],
    [(6, 8, 6, 20, 2), (10, 4, 50, 28, 2)],
    [(5, 7, 45, 63, 1)],
]
SPLITS = {"train": (0, 2), "validation": (2, 3), "test": (3, 4)}


def config(dataset, data_dir):
    return types.SimpleNamespace(dataset=dataset, data_dir=str(data_dir))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("coco")
    contents = coco_archive.prepare(data_dir, 5, 3, (48, 72))
    source = tfds_lib.open_dataset(config("coco/2017", data_dir))
    return source, contents


def test_coco_keeps_its_category_ids(coco):
    source, contents = coco
    rows = contents["val2017"]["categories"]
    assert source.category_ids == tuple(row["id"] for row in rows)
    assert source.class_names == tuple(row["name"] for row in rows)
    assert source.num_classes == 80
    assert source.category_ids[-1] == 90


def test_coco_has_the_boxes_of_the_archive(coco):
    source, contents = coco
    numbers = {c: i for i, c in enumerate(source.category_ids)}
    for split, content in zip(
        (source.train, source.evaluation), contents.values(), strict=True
    ):
        assert split.num_examples == len(content["images"])
        annotations = split.annotations()
        read = tf.function(split.read)
        ids = {row["id"] for row in content["images"]}
        assert {a.image_id for a in annotations} == ids
        num_crowds = 0
        for i, annotation in enumerate(annotations):
            rows = [
                row
                for row in content["annotations"]
                if row["image_id"] == annotation.image_id
            ]
            pixels = [
                [y, x, y + h, x + w]
                for x, y, w, h in (row["bbox"] for row in rows)
            ]
            pixels = np.array(pixels, np.float64).reshape(-1, 4)
            labels = [numbers[row["category_id"]] for row in rows]
            crowds = [row["iscrowd"] == 1 for row in rows]
            num_crowds += sum(crowds)
            assert (annotation.height, annotation.width) == (48, 72)
            np.testing.assert_allclose(annotation.boxes, pixels, atol=1e-4)
            np.testing.assert_array_equal(annotation.labels, labels)
            np.testing.assert_array_equal(annotation.is_crowd, crowds)
            np.testing.assert_allclose(
                annotation.areas, [row["area"] for row in rows]
            )
            example = read(tf.constant(i, tf.int64))
            np.testing.assert_allclose(
                example["boxes"], pixels / [48, 72, 48, 72], atol=1e-6
            )
            np.testing.assert_array_equal(example["labels"], labels)
            np.testing.assert_array_equal(example["is_crowd"], crowds)
            image = tf.io.decode_image(example["image"]).numpy()
            for row, (top, left, bottom, right) in zip(
                rows, pixels.astype(int), strict=True
            ):
                color = coco_archive.CATEGORIES[row["category_id"]]
                inside = image[top + 2 : bottom - 2, left + 2 : right - 2]
                # Objects may overlap; the last one is in front.
                if row is rows[-1]:
                    assert np.abs(inside.mean((0, 1)) - color).max() < 8
        assert num_crowds == 1
        assert any(len(a.boxes) == 0 for a in annotations)


def write(data_dir, crowd_key=None, splits=SPLITS, with_id=False, kind="jpeg"):
    """Writes a dataset whose features differ from COCO's."""
    parts = {
        "action": tfds.features.ClassLabel(num_classes=9),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
        "bbox": tfds.features.BBoxFeature(),
    }
    if crowd_key:
        parts[crowd_key] = np.bool_
    features = {
        "image": tfds.features.Image(encoding_format=kind),
        "things": tfds.features.Sequence(parts),
        "labels": tfds.features.Sequence(np.int64),
    }
    if with_id:
        features["image/id"] = np.int64
    features = tfds.features.FeaturesDict(features)
    folder = data_dir / NAME / "1.0.0"
    folder.mkdir(parents=True)
    infos = []
    for split, (begin, end) in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=NAME,
            split=split,
            filetype_suffix="tfrecord",
        )
        path = folder / f"{NAME}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in range(begin, end):
                example = _example(i, crowd_key, with_id, kind)
                writer.write(
                    features.serialize_example(features.encode_example(example))
                )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[end - begin],
                num_bytes=1,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos
    )


def _example(i, crowd_key, with_id, kind):
    height, width = SIZES[i]
    image = tf.io.decode_jpeg(tfds_archives.jpeg(0, i, height, width)).numpy()
    things = []
    for k, (ymin, xmin, ymax, xmax, label) in enumerate(OBJECTS[i]):
        box = tfds.features.BBox(
            ymin / height, xmin / width, ymax / height, xmax / width
        )
        thing = {"action": 8, "label": label, "bbox": box}
        things.append({**thing, crowd_key: k == 1} if crowd_key else thing)
    example = {"image": image, "things": things, "labels": [1] * i}
    return {**example, "image/id": 70 + i} if with_id else example


@pytest.mark.parametrize(
    ("crowd_key", "with_id", "kind"),
    [
        (None, True, "jpeg"),
        ("is_difficult", False, "png"),
        ("is_crowd", False, "jpeg"),
    ],
)
def test_features_are_found_by_type(tmp_path, crowd_key, with_id, kind):
    write(tmp_path, crowd_key, with_id=with_id, kind=kind)
    source = tfds_lib.open_dataset(config(NAME, tmp_path))
    assert source.class_names == ("ant", "bee", "cow")
    assert source.category_ids == (1, 2, 3)
    (_, second), (third,) = (
        split.annotations() for split in (source.train, source.evaluation)
    )
    assert second.image_id == (71 if with_id else 2)
    assert third.image_id == (72 if with_id else 1)
    for annotation, i in ((second, 1), (third, 2)):
        assert (annotation.height, annotation.width) == SIZES[i]
        # An empty box is dropped.
        whole = [row for row in OBJECTS[i] if row[2] > row[0]]
        crowds = [k == 1 for k, r in enumerate(OBJECTS[i]) if r[2] > r[0]]
        rows = np.array(whole, np.float64)
        np.testing.assert_allclose(annotation.boxes, rows[:, :4], rtol=1e-5)
        np.testing.assert_array_equal(annotation.labels, rows[:, 4])
        areas = np.prod(rows[:, 2:4] - rows[:, :2], axis=1)
        np.testing.assert_allclose(annotation.areas, areas, rtol=1e-5)
        expected = crowds if crowd_key else [False] * len(whole)
        np.testing.assert_array_equal(annotation.is_crowd, expected)
    example = source.evaluation.read(tf.constant(0, tf.int64))
    assert example["boxes"].shape == (1, 4)
    assert "record 1 of" in source.train.name(1)


def test_split_without_boxes_is_not_used_for_evaluation(tmp_path):
    splits = {"train": (1, 3), "validation": (0, 1), "test": (3, 4)}
    write(tmp_path / "a", splits=splits)
    source = tfds_lib.open_dataset(config(NAME, tmp_path / "a"))
    assert source.evaluation.name(0).startswith("example 0 of test")
    del splits["test"]
    write(tmp_path / "b", splits=splits)
    with pytest.raises(RecipeError, match="Its splits are train, validation."):
        tfds_lib.open_dataset(config(NAME, tmp_path / "b"))


def test_error_names_the_features_of_a_dataset_without_boxes(tmp_path):
    tfds_sets.write(tmp_path, tfds_sets.jpegs(3), num_eval=1)
    with pytest.raises(
        RecipeError,
        match="is not a detection dataset.* Its features are .*label",
    ):
        tfds_lib.open_dataset(config(tfds_sets.NAME, tmp_path))


def test_error_names_the_folder_for_manual_downloads(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    names = [
        f"{name}2017.zip"
        for name in (
            "train",
            "annotations_trainval",
            "val",
            "test",
            "image_info_test",
        )
    ]
    # TFDS uses these instead of the network and verifies their checksums.
    for name in names:
        (manual / name).write_bytes(b"no archive")
    with pytest.raises(RecipeError, match="has wrong checksum") as caught:
        tfds_lib.open_dataset(config("coco/2017", tmp_path))
    message = str(caught.value)
    assert f"{manual}: {', '.join(names)}" in message
    assert "\n" not in message
