"""Tests of recipes/coco.py on TFDS' coco/2017, from flags to the report."""

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import pytest

from recipes import coco
from recipes.data import input_pipeline
from recipes.detection.config import DetectionConfig
from recipes.errors import RecipeError
from tests.recipes.command_line import COCO
from tests.recipes.command_line import finish
from tests.recipes.command_line import parse_flags
from tests.recipes.detection import coco_archive
from tests.recipes.detection import small_detector
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import summary

NUM_TRAIN, NUM_VAL = 16, 7
FLAGS = {
    **small_detector.TINY,
    "dataset": "coco/2017",
    "virtual_replicas": 2,
    "max_level": 6,
    "head_depth": 1,
    "train_steps": 80,
    "eval_every_steps": 40,
    "log_every_steps": 20,
    "optimizer": "adamw",
    "learning_rate": 0.08,
    "flip": False,
    "eval_batch_size": 4,
}


def strict(path):
    """Reads a JSON file and fails for NaN, which JSON does not have."""

    def refuse(name):
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(), parse_constant=refuse)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run of the program and its arguments."""

    folder: object
    flags: dict
    content: dict
    output: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    contents = coco_archive.prepare(root / "data", NUM_TRAIN, NUM_VAL, (48, 64))
    flags = {
        **FLAGS,
        "data_dir": str(root / "data"),
        "workdir": str(root / "run"),
        "init_model": small_detector.classifier(root / "start.keras", "frn"),
    }
    config = parse_flags(DetectionConfig, *small_detector.arguments(**flags))
    with contextlib.redirect_stdout(io.StringIO()) as output:
        coco.run(config)
    return Trained(root / "run", flags, contents["val2017"], output.getvalue())


def evaluated(trained, **flags):
    """Runs --mode=eval in this process and returns its metrics."""
    flags = {**trained.flags, "mode": "eval", **flags}
    small_detector.run(
        trained.folder, **{k: v for k, v in flags.items() if k != "workdir"}
    )
    return strict(trained.folder / "eval.json")


def test_every_image_is_evaluated_once_and_predictions_match_coco(trained):
    from pycocotools.coco import COCO as Index
    from pycocotools.cocoeval import COCOeval

    last = summary(trained.folder)["last"]
    assert last["eval/examples"] == NUM_VAL
    found = strict(trained.folder / "predictions.json")
    annotated = {row["id"] for row in trained.content["images"]}
    assert {row["image_id"] for row in found} <= annotated
    assert {row["category_id"] for row in found} <= set(
        coco_archive.CATEGORY_IDS
    )
    truth = Index()
    truth.dataset = {**trained.content, "info": {}}
    truth.createIndex()
    results = truth.loadRes(str(trained.folder / "predictions.json"))
    counted = COCOeval(truth, results, "bbox")
    counted.evaluate()
    counted.accumulate()
    counted.summarize()
    # Otherwise, category ids and boxes would not be tested.
    assert last["eval/AP50"] > 0.05
    assert last["eval/AP"] == pytest.approx(counted.stats[0], abs=1e-12)
    assert last["eval/AP50"] == pytest.approx(counted.stats[1], abs=1e-12)
    assert last["eval/AR100"] == pytest.approx(counted.stats[8], abs=1e-12)


def test_progress_output(trained):
    lines = trained.output.splitlines()
    assert lines[0].startswith("devices: 1 CPU as 2 replicas")
    assert re.match(rf"\d+ training and {NUM_VAL} evaluation images", lines[1])
    assert lines[2].startswith("micro is the backbone; pyramid and heads are")
    assert lines[3].startswith("input alone: ")
    assert lines[-2].startswith(f"evaluated on {NUM_VAL} of {NUM_VAL} images: ")
    assert ", best AP " in lines[-2]
    assert lines[-1] == f"report: {trained.folder / 'report.html'}"
    evaluations = [r for r in rows(trained.folder) if "eval/AP" in r]
    assert [row["step"] for row in evaluations] == [40, 80]


def test_report_shows_the_evaluation(trained):
    page = (trained.folder / "report.html").read_text()
    for text in (
        "<h2>Evaluation images</h2>",
        'src="data:image/jpeg;base64,',
        "<h2>AP by class</h2>",
        # Name of COCO's category 3 in TFDS.
        "<td>category 3</td>",
        "AP50, last",
        "images evaluated",
        "start on coco/2017",
    ):
        assert text in page
    # Only classes that are annotated in the evaluation images are listed.
    kinds = {row["category_id"] for row in trained.content["annotations"]}
    assert page.count("<td>category ") <= len(kinds)
    classes = strict(trained.folder / "per_class.json")
    assert len(classes) == 80
    assert sum(value is not None for value in classes.values()) <= len(kinds)


@pytest.mark.parametrize(
    ("num_replicas", "eval_batch_size", "checkpoint"),
    [
        (1, 3, "last"),
        (4, 8, "best"),
        pytest.param(2, 2, "last", marks=pytest.mark.long),
    ],
)
def test_ap_does_not_depend_on_the_replicas(
    trained, num_replicas, eval_batch_size, checkpoint
):
    before = rows(trained.folder)
    found = evaluated(
        trained,
        num_replicas=num_replicas,
        virtual_replicas=4,
        eval_batch_size=eval_batch_size,
        checkpoint=checkpoint,
    )
    expected = summary(trained.folder)[checkpoint]
    values = {k: v for k, v in expected.items() if k.startswith("eval/")}
    for name, value in values.items():
        if value is not None:
            assert found[name] == pytest.approx(value, abs=1e-6), name
    assert found["step"] == expected["step"]
    assert found["eval/examples"] == NUM_VAL
    assert rows(trained.folder) == before


def test_saved_model_has_the_same_ap(trained, tmp_path, capsys):
    """Evaluates the training images as well, in another workdir."""
    small_detector.run(
        tmp_path / "run",
        **{k: v for k, v in trained.flags.items() if k != "workdir"}
        | {
            "mode": "eval",
            "init_model": None,
            "checkpoint": str(trained.folder / "model.keras"),
            "eval_train": True,
        },
    )
    found = strict(tmp_path / "run" / "eval.json")
    last = summary(trained.folder)["last"]
    assert found["eval/AP"] == pytest.approx(last["eval/AP"], abs=1e-6)
    assert 0.1 < found["eval/training_AP50"] <= 1.0
    assert ", training AP50 " in capsys.readouterr().out
    trained_on = strict(tmp_path / "run" / "training_predictions.json")
    assert len({row["image_id"] for row in trained_on}) > NUM_VAL
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Training images</h2>" in page


@pytest.mark.parametrize(
    "checkpoint", ["last", pytest.param("model.keras", marks=pytest.mark.long)]
)
def test_export_of_a_trained_detector(trained, capsys, checkpoint):
    if checkpoint != "last":
        checkpoint = str(trained.folder / checkpoint)
    flags = {k: v for k, v in trained.flags.items() if k != "workdir"}
    small_detector.run_only(
        trained.folder, **flags, mode="export", checkpoint=checkpoint
    )
    line = capsys.readouterr().out.splitlines()[-1]
    folder = trained.folder / "export" / "saved_model"
    assert line.startswith(f"export: {folder}, ")
    facts = strict(folder / "export.json")
    assert facts["class_names"][2] == "category 3"
    assert facts["compared_detections"] > 0


def test_classifier_is_rejected_as_a_checkpoint(trained):
    start = trained.flags["init_model"]
    with pytest.raises(
        RecipeError, match=f"{start} is not a detector. Train one"
    ):
        evaluated(trained, checkpoint=start)


@pytest.mark.long
def test_run_resumes_on_other_devices(tmp_path):
    flags = {
        "dataset": small_detector.folder(tmp_path / "drawn"),
        "init_model": small_detector.classifier(
            tmp_path / "start.keras", "frn"
        ),
        "mode": "train",
        "train_steps": 4,
        "save_every_steps": 2,
    }
    expected = small_detector.run(tmp_path / "run", **flags, num_replicas=2)
    (tmp_path / "run" / "checkpoints" / "step_000000004.npz").unlink()
    found = small_detector.run(tmp_path / "run", **flags)
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4]
    assert (expected["num_replicas"], found["num_replicas"]) == (2, 1)
    assert found["last"]["train/loss"] == pytest.approx(
        expected["last"]["train/loss"], rel=1e-5
    )


def test_dry_run_describes_the_run(tmp_path, capsys):
    small_detector.run_only(
        tmp_path / "run",
        dataset=small_detector.folder(tmp_path / "drawn"),
        init_model=small_detector.classifier(tmp_path / "start.keras", "frn"),
        dry_run=True,
        virtual_replicas=2,
    )
    text = capsys.readouterr().out
    for line in (
        "--max_level=5",
        "12 for training, 5 for evaluation, (64, 64, 3), 3 classes",
        "2, each 4 images a step",
        "dry run: nothing was trained",
    ):
        assert line in text
    assert not (tmp_path / "run").exists()


def test_help_explains_every_flag():
    code, output, _ = finish("--help", program=COCO)
    assert code == 0
    for field in dataclasses.fields(DetectionConfig):
        assert f"--{field.name}\n" in output or f"]{field.name}\n" in output
    lines = output.splitlines()
    assert lines[0].startswith("Trains a RetinaNet with any normalization")
    assert max(map(len, lines)) <= 80
    place = lines.index("  --nms_threshold")
    assert lines[place + 1].strip().startswith("IoU threshold of non-maximum")
    assert "--mixup" not in output and "ImageNet" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mixup=0.1"], "Unknown command line flag 'mixup'"),
        (["trees"], "error: unexpected argument 'trees': every setting is a"),
    ],
)
def test_unknown_argument_prints_a_one_line_error(arguments, message):
    code, output, errors = finish(*arguments, program=COCO)
    assert code == 1
    assert message in output + errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("where", "on_bad_image"),
    [
        ("train2017", "fail"),
        ("train2017", "skip"),
        pytest.param("val2017", "fail", marks=pytest.mark.long),
        ("val2017", "skip"),
    ],
)
def test_undecodable_image(tmp_path, caplog, where, on_bad_image):
    root = tmp_path / "drawn"
    dataset = small_detector.folder(root, 8, 4)
    images = sorted((root / where).iterdir())
    images[1].write_bytes(images[1].read_bytes()[:300])
    flags = {
        "dataset": dataset,
        "init_model": small_detector.classifier(
            tmp_path / "start.keras", "frn"
        ),
        "train_steps": 2,
        "on_bad_image": on_bad_image,
        # A bad training image needs no evaluation.
        "mode": "train" if where == "train2017" else "train_and_eval",
    }
    if on_bad_image == "fail":
        with pytest.raises(RecipeError, match=f"In {images[1]}"):
            small_detector.run(tmp_path / "run", **flags)
        return
    found = small_detector.run(tmp_path / "run", **flags)
    assert found["bad_images"] == [str(images[1])]
    assert np.isfinite(found["last"]["train/loss"])
    if where == "val2017":
        assert found["last"]["eval/examples"] == 3
        predictions = strict(tmp_path / "run" / "predictions.json")
        assert 1004 not in {row["image_id"] for row in predictions}


@pytest.fixture
def bad_coco(tmp_path, monkeypatch):
    """Prepares coco/2017 with text as its second evaluation image."""
    draw = coco_archive.draw

    def draw_text(count, size, seed):
        images, content = draw(count, size, seed)
        if content["images"][0]["id"] == 1007:
            images[sorted(images)[1]] = b"<html>404 not found</html>"
        return images, content

    monkeypatch.setattr(coco_archive, "draw", draw_text)
    coco_archive.prepare(tmp_path / "data", 8, 4, (48, 64))
    return {
        "dataset": "coco/2017",
        "data_dir": str(tmp_path / "data"),
        "init_model": small_detector.classifier(
            tmp_path / "start.keras", "frn"
        ),
        "train_steps": 1,
    }


def test_bad_tfds_image_has_size_0(bad_coco):
    """Its boxes have no area. It is reported or skipped when it is decoded."""
    made = input_pipeline.make_data(
        small_detector.make_config(**bad_coco), small_detector.TASK
    )
    annotations = made.source.evaluation.annotations()
    sizes = sorted((each.height, each.width) for each in annotations)
    assert sizes == [(0, 0), *[(48, 64)] * 3]


@pytest.mark.long
def test_bad_tfds_image_is_reported_or_skipped(bad_coco, tmp_path):
    with pytest.raises(RecipeError, match="Unknown image .* of validation, re"):
        small_detector.run(tmp_path / "fail", **bad_coco)
    flags = {**bad_coco, "on_bad_image": "skip"}
    found = small_detector.run(tmp_path / "skip", **flags)
    assert found["last"]["eval/examples"] == 3
