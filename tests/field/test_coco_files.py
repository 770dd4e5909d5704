"""Tests of annotation and image files that other programs write."""

import codecs
import json
import math
import re

import keras
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import tensorflow as tf  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402

from recipes.data import input_pipeline  # noqa: E402
from recipes.detection import coco_metric  # noqa: E402
from recipes.detection import visualization  # noqa: E402
from recipes.detection.datasets import coco_folder  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from tests.recipes.detection import small_detector  # noqa: E402

HEIGHT, WIDTH = 24, 32
HUGE = 2**70
# Too large for a float.
NO_FLOAT = 10**400


def content():
    """Returns the annotations of two images with one box each."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in (1, 2)
        ],
        "annotations": [
            {
                "id": 10 + i,
                "image_id": i,
                "category_id": i,
                "bbox": [1, 2, 3 + i, 4],
                "area": 10.5,
                "iscrowd": 0,
            }
            for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "ash"}, {"id": 2, "name": "fir"}],
    }


def changed(*path, value):
    """Returns the annotations with a value at a path changed.

    A value of `...` removes the key.
    """
    whole = content()
    *steps, key = path
    place = whole
    for step in steps:
        place = place[step]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return whole


def write(root, train, evaluation=None, write_json=None):
    """Writes a folder in COCO's layout.

    Returns:
        Path of the training annotations.
    """
    (root / "annotations").mkdir(parents=True)
    for split, part in (("train", train), ("val", evaluation or train)):
        path = root / "annotations" / f"instances_{split}.json"
        if write_json:
            write_json(path, part)
        else:
            path.write_text(json.dumps(part))
        for image in part["images"]:
            if isinstance(image.get("file_name"), str):
                write_image(root / split / image["file_name"], HEIGHT, WIDTH)
    return root / "annotations" / "instances_train.json"


def write_image(path, height, width, seed=0, **options):
    """Writes an image file with Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    PIL.Image.fromarray(noise).save(path, **options)


def read_by_recipe(split, source):
    """Returns sorted tuples of a split's objects by image id.

    Each tuple has the box, category id, category name, crowd flag and area.
    """
    return {
        each.image_id: sorted(
            (
                *np.array(box, np.float64).round(4).tolist(),
                source.category_ids[label],
                source.class_names[label],
                bool(crowd),
                round(float(area), 4),
            )
            for box, label, crowd, area in zip(
                each.boxes, each.labels, each.is_crowd, each.areas, strict=True
            )
        )
        for each in split.annotations()
    }


def read_by_pycocotools(path):
    """Returns the tuples of `read_by_recipe`, read by pycocotools.

    It has no defaults for missing keys.
    """
    coco = COCO()
    coco.dataset = json.loads(path.read_text("utf-8-sig"))
    coco.createIndex()
    rows = {}
    for image_id in coco.getImgIds():
        rows[image_id] = []
        for row in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):
            x, y, width, height = row["bbox"]
            (category,) = coco.loadCats([row["category_id"]])
            area = row.get("area")
            rows[image_id].append(
                (
                    *(float(y), float(x), float(y + height), float(x + width)),
                    category["id"],
                    category["name"],
                    bool(row.get("iscrowd") or 0),
                    float(width * height if area is None else area),
                )
            )
    return {image_id: sorted(found) for image_id, found in rows.items()}


ACCEPTED = {
    "image id of a whole float": changed("images", 0, "id", value=1.0),
    "image_id of a whole float": changed(
        "annotations", 0, "image_id", value=1.0
    ),
    "category_id of a whole float": changed(
        "annotations", 0, "category_id", value=1.0
    ),
    "category id of a whole float": changed("categories", 0, "id", value=1.0),
    "annotation id of a whole float": changed(
        "annotations", 0, "id", value=5.0
    ),
    "annotation id beyond 64 bits": changed("annotations", 0, "id", value=HUGE),
    "negative annotation id": changed("annotations", 0, "id", value=-HUGE),
    "annotation id 0": changed("annotations", 0, "id", value=0),
    "iscrowd 0.0": changed("annotations", 0, "iscrowd", value=0.0),
    "iscrowd 1.0": changed("annotations", 0, "iscrowd", value=1.0),
    "iscrowd false": changed("annotations", 0, "iscrowd", value=False),
    "iscrowd true": changed("annotations", 0, "iscrowd", value=True),
    "iscrowd null": changed("annotations", 0, "iscrowd", value=None),
    "no iscrowd": changed("annotations", 0, "iscrowd", value=...),
    "area of an int": changed("annotations", 0, "area", value=7),
    "area 0": changed("annotations", 0, "area", value=0),
    "area null": changed("annotations", 0, "area", value=None),
    "no area": changed("annotations", 0, "area", value=...),
    "height of a whole float": changed("images", 0, "height", value=24.0),
    "box of floats": changed(
        "annotations", 0, "bbox", value=[0.5, 1.25, 3.0, 2]
    ),
    "category unused": changed(
        "categories",
        value=[*content()["categories"], {"id": 9, "name": "oak"}],
    ),
    # https://github.com/roboflow/roboflow-100-benchmark/issues/45
    # https://github.com/roboflow/rf-detr/pull/1303
    "Roboflow's root category": changed(
        "categories",
        value=[
            {"id": 0, "name": "trees", "supercategory": "none"},
            {"id": 1, "name": "ash", "supercategory": "trees"},
            {"id": 2, "name": "fir", "supercategory": "trees"},
        ],
    ),
    "root category of a child's name": changed(
        "categories",
        value=[
            {"id": 0, "name": "ash", "supercategory": "none"},
            {"id": 1, "name": "ash", "supercategory": "ash"},
            {"id": 2, "name": "fir", "supercategory": "ash"},
        ],
    ),
    "two categories of one name": changed("categories", 1, "name", value="ash"),
    "negative category id": {
        **changed("annotations", 0, "category_id", value=-1),
        "categories": [{"id": -1, "name": "x"}, {"id": 2, "name": "y"}],
    },
    "negative image id": {
        **changed("annotations", 0, "image_id", value=-3),
        "images": [
            {**content()["images"][0], "id": -3},
            content()["images"][1],
        ],
    },
    "file names with folders": changed(
        "images", 0, "file_name", value="part/a b/é.png"
    ),
    "one file for two images": changed("images", 0, "file_name", value="2.png"),
    "no annotation of an image": changed(
        "annotations", value=content()["annotations"][1:]
    ),
    "unknown keys": changed("annotations", 0, "score", value={"a": [None]}),
    "RLE of a crowd": changed(
        "annotations",
        0,
        "segmentation",
        value={"counts": "x", "size": [24, 32]},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_values_are_read_like_pycocotools(tmp_path, name):
    path = write(tmp_path, ACCEPTED[name])
    source = coco_folder.open_folder(tmp_path)
    assert read_by_recipe(source.train, source) == read_by_pycocotools(path)
    coco = COCO()
    coco.dataset = json.loads(path.read_text())
    coco.createIndex()
    assert list(source.category_ids) == sorted(coco.getCatIds())


ENCODINGS = {
    "UTF-8 with BOM": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Windows line endings": lambda text: text.replace(", ", ",\r\n").encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_and_line_endings(tmp_path, name):
    part = changed("categories", 0, "name", value="Bäume")

    def write_json(path, part):
        text = json.dumps(part, ensure_ascii=False)
        path.write_bytes(ENCODINGS[name](text))

    write(tmp_path / "other", part, write_json=write_json)
    path = write(tmp_path / "plain", part)
    source = coco_folder.open_folder(tmp_path / "other")
    assert source.class_names == ("Bäume", "fir")
    assert read_by_recipe(source.train, source) == read_by_pycocotools(path)


@pytest.mark.parametrize("folder", ["", "train", "images/train", "elsewhere"])
def test_file_names_may_be_relative_to_the_dataset_folder(tmp_path, folder):
    part = content()
    for image in part["images"]:
        image["file_name"] = f"{folder}/{image['file_name']}".lstrip("/")
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        path = tmp_path / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(part))
    for image in part["images"]:
        write_image(tmp_path / image["file_name"], HEIGHT, WIDTH)
    source = coco_folder.open_folder(tmp_path)
    for i, image in enumerate(part["images"]):
        assert source.train.name(i) == str(tmp_path / image["file_name"])


NAN, INFINITY = math.nan, math.inf
REFUSED = {
    "image id of a fraction": changed("images", 0, "id", value=1.5),
    "image id of a string": changed("images", 0, "id", value="1"),
    "image id of a bool": changed("images", 0, "id", value=True),
    "image id null": changed("images", 0, "id", value=None),
    "image id NaN": changed("images", 0, "id", value=NAN),
    "image id infinite": changed("images", 0, "id", value=INFINITY),
    "image id beyond 64 bits": changed("images", 0, "id", value=HUGE),
    "image id of 1e300": changed("images", 0, "id", value=1e300),
    "image_id of a fraction": changed("annotations", 0, "image_id", value=1.5),
    "image_id of a string": changed("annotations", 0, "image_id", value="1"),
    "image_id beyond 64 bits": changed(
        "annotations", 0, "image_id", value=HUGE
    ),
    "no image_id": changed("annotations", 0, "image_id", value=...),
    "category id beyond 64 bits": changed("categories", 0, "id", value=-HUGE),
    "category id of a string": changed("categories", 0, "id", value="1"),
    "category_id of a list": changed(
        "annotations", 0, "category_id", value=[1]
    ),
    "category_id beyond 64 bits": changed(
        "annotations", 0, "category_id", value=NO_FLOAT
    ),
    "category without a name": changed("categories", 0, "name", value=...),
    "category name of an int": changed("categories", 0, "name", value=1),
    "annotation id of a string": changed("annotations", 0, "id", value="11"),
    "annotation id infinite": changed("annotations", 0, "id", value=INFINITY),
    "annotation id of a list": changed("annotations", 0, "id", value=[]),
    "annotation id twice": changed("annotations", 0, "id", value=12),
    "annotation id twice, once a float": changed(
        "annotations", 0, "id", value=12.0
    ),
    "huge annotation id twice": changed(
        "annotations",
        value=[{**row, "id": HUGE} for row in content()["annotations"]],
    ),
    "image id twice": changed("images", 0, "id", value=2.0),
    "category id twice": changed("categories", 0, "id", value=2),
    "iscrowd 2": changed("annotations", 0, "iscrowd", value=2),
    "iscrowd 0.5": changed("annotations", 0, "iscrowd", value=0.5),
    "iscrowd NaN": changed("annotations", 0, "iscrowd", value=NAN),
    "iscrowd of a string": changed("annotations", 0, "iscrowd", value="0"),
    "area NaN": changed("annotations", 0, "area", value=NAN),
    "area infinite": changed("annotations", 0, "area", value=INFINITY),
    "area negative": changed("annotations", 0, "area", value=-1),
    "area of a string": changed("annotations", 0, "area", value="7"),
    "area of a bool": changed("annotations", 0, "area", value=True),
    "area beyond a float": changed("annotations", 0, "area", value=NO_FLOAT),
    "area of 1e300": changed("annotations", 0, "area", value=1e300),
    "box NaN": changed("annotations", 0, "bbox", value=[NAN, 1, 2, 3]),
    "box infinite": changed(
        "annotations", 0, "bbox", value=[0, 1, INFINITY, 3]
    ),
    "box of strings": changed("annotations", 0, "bbox", value=list("1234")),
    "box of a string": changed("annotations", 0, "bbox", value="1,2,3,4"),
    "box of bools": changed("annotations", 0, "bbox", value=[True] * 4),
    "box of three": changed("annotations", 0, "bbox", value=[1, 2, 3]),
    "box of none": changed("annotations", 0, "bbox", value=[]),
    "box in a list": changed("annotations", 0, "bbox", value=[[1, 2, 3, 4]]),
    "box null": changed("annotations", 0, "bbox", value=None),
    "box of an object": changed("annotations", 0, "bbox", value={"x": 1}),
    "box beyond a float": changed(
        "annotations", 0, "bbox", value=[1, 2, NO_FLOAT, 4]
    ),
    "box beyond 64 bits": changed(
        "annotations", 0, "bbox", value=[HUGE, 2, 3, 4]
    ),
    "box of negative width": changed(
        "annotations", 0, "bbox", value=[1, 2, -3, 4]
    ),
    "height of a fraction": changed("images", 0, "height", value=24.5),
    "height of a string": changed("images", 0, "height", value="24"),
    "height 0": changed("images", 0, "height", value=0),
    "height negative": changed("images", 0, "height", value=-24),
    "height beyond 64 bits": changed("images", 0, "height", value=HUGE),
    "width null": changed("images", 0, "width", value=None),
    "no width": changed("images", 0, "width", value=...),
    "file name of an int": changed("images", 0, "file_name", value=1),
    "no file name": changed("images", 0, "file_name", value=...),
    "images of lists": changed("images", 0, value=[1]),
    "annotations null": changed("annotations", value=None),
    "categories of an object": changed("categories", value={"1": "ash"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_values_are_one_line_errors(tmp_path, name):
    good = content()

    def write_json(path, part):
        is_train = path.stem.endswith("train")
        path.write_text(json.dumps(REFUSED[name] if is_train else part))

    write(tmp_path, good, write_json=write_json)
    with pytest.raises(RecipeError) as caught:
        coco_folder.open_folder(tmp_path)
    message = str(caught.value)
    assert "instances_train.json" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["", "x" * 300 + ".png", "a\x00b.png", "\ud800.png", "../1.png"]
)
def test_file_names_without_a_file_are_one_line_errors(tmp_path, name):
    write(tmp_path, content())
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(json.dumps(changed("images", 0, "file_name", value=name)))
    with pytest.raises(RecipeError, match="images that do not exist") as caught:
        coco_folder.open_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\xfa",
        b"{'images': []}",
        b"[" * 10**5,
        b"1" * 5000,
        b"null",
    ],
    ids=["empty", "torn", "quotes", "deep", "digits", "null"],
)
def test_invalid_json_is_a_one_line_error(tmp_path, text):
    path = write(tmp_path, content())
    path.write_bytes(text)
    with pytest.raises(RecipeError, match="instances_train.json") as caught:
        coco_folder.open_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_classes_with_the_same_name_have_separate_ap():
    result = coco_metric.Evaluation({}, (0.25, 0.75, 0.5))
    assert sorted(result.per_class(("tree", "tree", "bee")).values()) == [
        0.25,
        0.5,
        0.75,
    ]
    assert result.per_class(("tree", "tree", "bee")) == {
        "tree (class 0)": 0.25,
        "tree (class 1)": 0.75,
        "bee": 0.5,
    }
    assert result.per_class(("a", "b", "c")) == {"a": 0.25, "b": 0.75, "c": 0.5}
    confusing = result.per_class(("a (class 2)", "a", "a"))
    assert sorted(confusing.values()) == [0.25, 0.5, 0.75]


def test_unlisted_images_are_logged(tmp_path, caplog):
    write(tmp_path, changed("images", 0, "file_name", value="./1.png"))
    write_image(tmp_path / "train" / "3.PNG", HEIGHT, WIDTH)
    write_image(tmp_path / "val" / "extra.jpg", HEIGHT, WIDTH)
    write_image(tmp_path / "val" / "._1.png", HEIGHT, WIDTH, format="PNG")
    with caplog.at_level("WARNING", logger="absl"):
        coco_folder.open_folder(tmp_path)
    (record,) = caplog.records
    assert "2 images are not listed in the annotations" in record.getMessage()
    assert record.getMessage().endswith(f"{tmp_path}/train/3.PNG.")


def test_unused_roboflow_splits_are_logged(tmp_path, caplog):
    for split in ("train", "valid", "test"):
        write_image(tmp_path / split / "1.png", HEIGHT, WIDTH)
        write_image(tmp_path / split / "2.png", HEIGHT, WIDTH)
        path = tmp_path / split / "_annotations.coco.json"
        path.write_text(json.dumps(content()))
    with caplog.at_level("WARNING", logger="absl"):
        source = coco_folder.open_folder(tmp_path)
    assert source.evaluation.name(0) == str(tmp_path / "valid" / "1.png")
    (record,) = caplog.records
    assert record.getMessage() == (
        f"folder:{tmp_path}: splits that are not used: test/."
    )


NUM_IMAGES = 40
# Only every second image is checked before a run, which are none of these.
TURNED, SCALED, PNG_TURNED = 1, 7, 39
WRONG = (TURNED, SCALED, PNG_TURNED)


def make_exif_orientation_6():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return exif


def write_mismatched(root, split="train"):
    """Writes 40 images, three of which differ from their annotated size.

    Returns:
        `--dataset` and the paths of the three.
    """
    paths = []
    for name in ("train", "val"):
        images, boxes = [], []
        for i in range(NUM_IMAGES):
            ending = "png" if i == PNG_TURNED else "jpg"
            path = root / name / f"{i:02d}.{ending}"
            size, options = (HEIGHT, WIDTH), {}
            if name == split and i in WRONG:
                paths.append(path)
                size = (12, 16)
                if i != SCALED:
                    # Stored in landscape, annotated as displayed, in portrait.
                    size = (WIDTH, HEIGHT)
                    options["exif"] = make_exif_orientation_6()
            write_image(path, *size, seed=i, **options)
            if "exif" in options:
                with PIL.Image.open(path) as image:
                    seen = PIL.ImageOps.exif_transpose(image)
                    assert seen.size == (WIDTH, HEIGHT)
            sizes = {"height": HEIGHT, "width": WIDTH}
            images.append({"id": i, "file_name": path.name, **sizes})
            boxes.append(
                {
                    "id": i + 1,
                    "image_id": i,
                    "category_id": 1 + i % 2,
                    "bbox": [4, 5, 16, 15],
                    "area": 240,
                    "iscrowd": 0,
                }
            )
        part = {**content(), "images": images, "annotations": boxes}
        annotations = root / "annotations" / f"instances_{name}.json"
        annotations.parent.mkdir(exist_ok=True, parents=True)
        annotations.write_text(json.dumps(part))
    return f"folder:{root}", paths


def make_data(dataset, on_bad_image, **flags):
    config = small_detector.make_config(
        dataset=dataset,
        on_bad_image=on_bad_image,
        global_batch_size=8,
        train_steps=5,
        **flags,
    )
    return config, input_pipeline.make_data(config, small_detector.TASK)


# https://github.com/facebookresearch/detectron2/issues/788
# https://github.com/facebookresearch/detectron2/issues/863
# https://github.com/roboflow/rf-detr/issues/189
# https://github.com/HumanSignal/label-studio/issues/6608
@pytest.mark.parametrize("split", ["train", "val"])
def test_image_of_another_size_fails_when_it_is_read(tmp_path, split):
    dataset, paths = write_mismatched(tmp_path, split)
    _, made = make_data(dataset, "fail")
    batches = made.train(0) if split == "train" else made.evaluation()
    message = (
        r"does not match its annotation: it has (24x32|16x12) pixels "
        rf"instead of 32x24.*In {tmp_path}/{split}/\d\d\.(jpg|png)\. .*"
        "--on_bad_image=skip"
    )
    with pytest.raises(RecipeError, match=message) as caught:
        with made.bad_images.explain_errors():
            list(batches)
    assert any(str(path) in str(caught.value) for path in paths)


@pytest.mark.parametrize("split", ["train", "val"])
def test_skipped_images_of_another_size_have_zero_weight(
    tmp_path, split, caplog
):
    dataset, paths = write_mismatched(tmp_path, split)
    _, made = make_data(dataset, "skip")
    batches = made.train(0) if split == "train" else made.evaluation()
    with caplog.at_level("WARNING", logger="absl"):
        rows = [
            row
            for images, targets, weights in batches
            for row in zip(
                images, tf.nest.flatten(targets)[0], weights, strict=True
            )
        ]
    assert len(rows) == NUM_IMAGES
    left_out = [row for row in rows if not row[2]]
    assert len(left_out) == len(WRONG)
    assert not any(image.numpy().any() for image, *_ in left_out)
    assert sorted(made.bad_images.names()) == sorted(map(str, paths))
    assert len(caplog.records) == len(WRONG)
    turned = [r for r in caplog.records if "EXIF" in r.getMessage()]
    assert len(turned) == 2
    if split == "val":
        assert [int(index) for _, index, weight in rows if not weight] == list(
            WRONG
        )


def test_exif_is_ignored_if_the_stored_size_is_annotated(tmp_path):
    dataset, paths = write_mismatched(tmp_path)
    for path in paths:
        write_image(path, HEIGHT, WIDTH, exif=make_exif_orientation_6())
    _, made = make_data(dataset, "fail")
    with made.bad_images.explain_errors():
        weights = [weights for *_, weights in made.train(0)]
    assert np.concatenate(weights).sum() == NUM_IMAGES


def test_report_omits_images_of_another_size(tmp_path):
    dataset, _ = write_mismatched(tmp_path, "val")
    _, made = make_data(dataset, "skip")
    shown = visualization.select_images(
        made.source.evaluation, made.source, [], NUM_IMAGES
    )
    there = {annotation.image_id for _, annotation, _ in shown}
    assert there == set(range(NUM_IMAGES)) - set(WRONG)


def test_sizes_are_checked_before_a_run_unless_skipped(tmp_path):
    dataset, _ = write_mismatched(tmp_path)
    write_image(tmp_path / "val" / "00.jpg", WIDTH, HEIGHT)
    message = "image 0 should have 32x24 pixels, but .*00.jpg has 24x32.*EXIF"
    with pytest.raises(RecipeError, match=message):
        make_data(dataset, "fail")
    make_data(dataset, "skip")
    # If the size of every image differs, nothing is left to train on.
    for path in (tmp_path / "train").iterdir():
        write_image(path, HEIGHT // 2, WIDTH // 2)
    message = "instances_train.json: .* 20 of 20 checked images"
    with pytest.raises(RecipeError, match=message):
        make_data(dataset, "skip")


def test_run_reports_skipped_images(tmp_path, capsys):
    dataset, paths = write_mismatched(tmp_path / "mismatched", "val")
    found = small_detector.run(
        tmp_path / "run",
        dataset=dataset,
        on_bad_image="skip",
        init_model=small_detector.classifier(tmp_path / "start.keras", "frn"),
        train_steps=1,
    )
    assert sorted(found["bad_images"]) == sorted(map(str, paths))
    assert found["last"]["eval/examples"] == NUM_IMAGES - len(WRONG)
    output = capsys.readouterr().out
    (line,) = re.findall("left out 3 images .*", output)
    assert all(str(path) in line for path in paths)
    predictions = json.loads((tmp_path / "run/predictions.json").read_text())
    assert not {row["image_id"] for row in predictions} & set(WRONG)


@pytest.mark.long
def test_evaluation_reports_skipped_images(tmp_path, capsys):
    dataset, paths = write_mismatched(tmp_path / "mismatched", "val")
    flags = {
        "dataset": dataset,
        "on_bad_image": "skip",
        "init_model": small_detector.classifier(
            tmp_path / "start.keras", "frn"
        ),
        "train_steps": 1,
    }
    small_detector.run(tmp_path / "run", **flags, mode="train")
    assert "left out" not in capsys.readouterr().out
    small_detector.run_only(tmp_path / "run", **flags, mode="eval")
    assert "left out 3 images" in capsys.readouterr().out
    evaluated = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert sorted(evaluated["bad_images"]) == sorted(map(str, paths))
