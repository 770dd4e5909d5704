"""Tests that invalid input of recipes/coco.py is a one-line error."""

import json
import logging
import types

import absl.logging
import keras
import pytest
from absl import flags

from recipes import coco
from recipes.config import flags as recipe_flags
from recipes.detection.config import DetectionConfig
from recipes.errors import RecipeError
from tests.recipes import tfds_sets
from tests.recipes.detection import small_detector

CATEGORIES = "The categories are 1, 3, 18"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes a dataset and models to start from."""
    root = tmp_path_factory.mktemp("files")
    dataset = small_detector.folder(root / "drawn")
    inputs = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 16, strides=16, padding="same")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)
    keras.Model(inputs, x).save(root / "coarse.keras")
    inputs = keras.Input((64, 64, 1))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(
        root / "gray.keras"
    )
    inputs = keras.Input((12,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(root / "rows.keras")
    (root / "torn.keras").write_bytes(b"PK no archive")
    start = small_detector.classifier(root / "start.keras", "frn")
    small_detector.run(
        root / "run",
        dataset=dataset,
        init_model=start,
        mode="train",
        train_steps=1,
    )
    return types.SimpleNamespace(root=root, dataset=dataset, start=start)


def error_message(files, workdir, **flags):
    """Runs the program and returns its error message."""
    flags = {"dataset": files.dataset, "init_model": files.start, **flags}
    with pytest.raises(RecipeError) as caught:
        small_detector.run_only(workdir, **flags)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    assert not (workdir / "model.keras").exists()
    return message


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (
            {"image_size": 100, "max_level": 6},
            ["image_size=100", "coarsest level 6", "such as 64 or 128."],
        ),
        (
            {"scale_jitter_min": 2.0, "scale_jitter_max": 1.0},
            ["--scale_jitter_min must be at most --scale_jitter_max."],
        ),
        (
            {"max_level": 4},
            ["--max_level must be at least 5", "max_level=4"],
        ),
        ({"min_level": 2}, ["--min_level must be at least 3", "min_level=2"]),
        (
            {"min_level": 7},
            ["--max_level must be at least --min_level", "min_level=7"],
        ),
        (
            {"global_batch_size": 9, "virtual_replicas": 2},
            ["=9 cannot be split evenly over 2 repl"],
        ),
        (
            {"eval_batch_size": 3, "virtual_replicas": 2},
            ["--eval_batch_size=3", "a multiple of 2"],
        ),
        (
            {"global_batch_size": 64},
            ["12 training images, fewer than one batch"],
        ),
        ({"export_format": "litert"}, ["'litert'", "onnx, saved_model"]),
        ({"best_metric": "loss"}, ["'loss'", "AP, AP50, AP75"]),
        ({"norm": "batch"}, ["--norm", "'batch'", "frn"]),
        ({"dataset": "coc"}, ["unknown dataset 'coc'.", "coco"]),
        (
            {"dataset": "folder:/no"},
            ["/no: the folder does not exist. It must"],
        ),
        ({"nms_threshold": 1.5}, ["--nms_threshold", "nms_threshold=1.5"]),
        (
            {"init_model": None, "model": "ResNet5"},
            ["unknown model 'ResNet5'. Did you mean 'ResNet50'? There are: Re"],
        ),
        (
            {
                "init_model": None,
                "model": "resnet_small",
                "norm_kwargs": {"groups": 5},
                "norm": "gn",
            },
            ["--norm=gn", "groups"],
        ),
        ({"mode": "eval"}, ["--mode=eval: there is no run in ", "Train first"]),
        ({"mode": "export"}, ["--mode=export: there is no run in "]),
    ],
)
def test_invalid_flags_are_one_line_errors(files, tmp_path, flags, parts):
    message = error_message(files, tmp_path / "run", **flags)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "flags", "parts"),
    [
        ("none.keras", {}, ["does not exist: pass a .keras or .h5"]),
        ("torn.keras", {}, ["torn.keras"]),
        (
            "coarse.keras",
            {},
            ["coarse.keras cannot be a backbone", "map of stride 8"],
        ),
        ("gray.keras", {}, ["images with 1 channels", "have 3"]),
        ("rows.keras", {}, ["a single image input", "(12,)"]),
        (
            "run/model.keras",
            {"image_size": 128},
            ["(64, 64, 3)", "(128, 128, 3)", "--image_size"],
        ),
        (
            "run/model.keras",
            {"max_level": 6},
            ["anchors", "level"],
        ),
        ("run/model.keras", {"anchor_size": 2.0}, ["anchors", "anchor_size"]),
        (
            "run/model.keras",
            {"precision": "mixed_bfloat16"},
            ["--precision=mixed_bfloat16", "was saved in float32"],
        ),
        ("start.keras", {"convert_to": "frm"}, ["convert_to", "'frm'"]),
        ("start.keras", {"activation": "relu"}, ["--activation"]),
    ],
)
def test_models_that_do_not_match_are_one_line_errors(
    files, tmp_path, name, flags, parts
):
    path = str(files.root / name)
    message = error_message(files, tmp_path / "run", init_model=path, **flags)
    for part in [name, *parts] if not flags else parts:
        assert part in message


def changed(files, root, change, split="val2017"):
    """Writes a copy of the dataset with changed annotations."""
    root.mkdir()
    for part in ("annotations", "train2017", "val2017"):
        (root / part).mkdir()
        for file in (files.root / "drawn" / part).iterdir():
            (root / part / file.name).write_bytes(file.read_bytes())
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    path.write_text(change(content) or json.dumps(content))
    return f"folder:{root}"


def no_boxes(content):
    content["annotations"] = []


def unknown_category(content):
    content["annotations"][1]["category_id"] = 4


def other_categories(content):
    content["categories"] = [
        {"id": 1, "name": "one"},
        {"id": 3, "name": "category 3"},
        {"id": 18, "name": "category 18"},
    ]


def missing_image(content):
    content["images"][0]["file_name"] = "gone.jpg"


def three_numbers(content):
    content["annotations"][0]["bbox"] = [1, 2, 3]


def negative(content):
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]


def outside(content):
    content["annotations"][0]["bbox"] = [900, 2, 3, 4]


def words(content):
    content["annotations"][0]["bbox"] = ["a", "b", "c", "d"]


def other_size(content):
    for image in content["images"]:
        image["width"] = 128


def torn(content):
    return json.dumps(content)[:200]


def nothing(content):
    return "[]"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (no_boxes, ["no box of a single object"]),
        (unknown_category, ["has category_id 4", CATEGORIES]),
        (
            other_categories,
            [
                "must have the same categories",
                "They differ in 1 'category 1', 1 'one'.",
            ],
        ),
        (missing_image, ["lists images that do not exist", "gone.jpg"]),
        (
            three_numbers,
            ["'bbox', four finite numbers", "Received: [1, 2, 3]."],
        ),
        (negative, ["whose width or height is negative"]),
        (outside, ["outside its 64x48 pixels"]),
        (words, ["four finite numbers", "Received: ['a', 'b', 'c', 'd']."]),
        (other_size, ["should have 128x48 pixels, but", "has 64x48"]),
        (torn, ["is not a JSON file"]),
        (nothing, ["must contain 'images', a list of objects"]),
    ],
)
def test_invalid_annotations_are_one_line_errors(
    files, tmp_path, change, parts
):
    dataset = changed(files, tmp_path / "set", change)
    message = error_message(files, tmp_path / "run", dataset=dataset)
    for part in ["instances_val2017.json", *parts]:
        assert part in message


def test_detector_with_other_classes_is_rejected(files, tmp_path):
    def fewer(content):
        content["categories"] = content["categories"][1:]
        content["annotations"] = [
            row for row in content["annotations"] if row["category_id"] != 1
        ]

    dataset = changed(files, tmp_path / "set", fewer)
    other = files.root / "drawn"
    changed_too = types.SimpleNamespace(root=tmp_path / "twice")
    changed_too.root.mkdir()
    (tmp_path / "set").rename(changed_too.root / "drawn")
    dataset = changed(changed_too, tmp_path / "set", fewer, "train2017")
    assert other.exists()
    message = error_message(
        files,
        tmp_path / "run",
        dataset=dataset,
        init_model=str(files.root / "run" / "model.keras"),
    )
    assert "has 3 classes" in message and "has 2." in message


def test_dataset_without_boxes_is_rejected(files, tmp_path):
    tfds_sets.write(tmp_path, tfds_sets.jpegs(6), 2)
    message = error_message(
        files,
        tmp_path / "run",
        dataset=tfds_sets.NAME,
        data_dir=str(tmp_path),
    )
    assert "is not a detection dataset" in message
    features = message.rpartition("Its features are ")[2]
    assert sorted(features.strip(".").split(", ")) == ["image", "label"]


def test_workdir_of_another_program_is_rejected(files, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"mixup": 0.1}))
    message = error_message(files, tmp_path)
    assert "is not a config of" in message


def test_error_is_printed_with_exit_code_1(monkeypatch, capsys):
    """Calls `main` as absl does; real runs test the other errors."""
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, DetectionConfig)
    flags.DEFINE_integer("verbosity", 0, "", flag_values=values)
    values(["coco.py", "--model=no such model"])
    monkeypatch.setattr(flags, "FLAGS", values)
    absl.logging.set_verbosity(absl.logging.INFO)
    monkeypatch.setattr(coco, "run", lambda config: fail("no such thing."))
    with pytest.raises(SystemExit) as caught:
        coco.main(["coco.py"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: no such thing.\n"
    assert absl.logging.get_verbosity() == absl.logging.WARNING
    # Warnings of programs have no time, thread and source line.
    warning = logging.LogRecord("absl", logging.WARNING, "", 1, "x", (), None)
    formatted = absl.logging.get_absl_handler().format(warning)
    assert formatted == "WARNING: x"


def fail(message):
    raise RecipeError(message)
