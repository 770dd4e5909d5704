"""Damaged files of a run, and full disks: one line each."""

import contextlib
import dataclasses
import json
import re
import resource
import shutil

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402

from recipes.classification import class_metrics  # noqa: E402
from recipes.classification import evaluation_report  # noqa: E402
from recipes.classification.config import Config  # noqa: E402
from recipes.data import input_pipeline  # noqa: E402
from recipes.detection import visualization  # noqa: E402
from recipes.detection.config import DetectionConfig  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.run_dir import metrics_log  # noqa: E402
from recipes.run_dir import recorded_run  # noqa: E402
from recipes.run_dir import run_dir  # noqa: E402
from recipes.training import runner  # noqa: E402
from tests.recipes import small_runs  # noqa: E402
from tests.recipes.detection import small_detector  # noqa: E402

ENTRY = {
    "image_id": 1001,
    "bbox": [3.0, 4.0, 10.0, 20.0],
    "category_id": 18,
    "score": 0.75,
}
ONE_DEVICE = {
    "train_steps": 2,
    "mode": "train",
    "strategy": "one_device",
    "virtual_replicas": None,
}
HUGE, DEEP = 10**400, b"[" * 100_000


def with_entry(**changes):
    return json.dumps([{**ENTRY, **changes}]).encode()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images to predict."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        pixels = np.full((48, 64, 3), 80 * i, np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classified") / "run"
    small_runs.run(folder, **{**ONE_DEVICE, "mode": "train_and_eval"})
    return folder


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    root = tmp_path_factory.mktemp("detected")
    small_detector.run(
        root / "run",
        dataset=small_detector.folder(root / "drawn", 8, 4),
        init_model=small_detector.classifier(root / "start.keras"),
        **{**ONE_DEVICE, "mode": "train_and_eval"},
    )
    return root / "run"


@pytest.fixture(scope="module")
def boxes(detected):
    dataset = f"folder:{detected.parent / 'drawn'}"
    config = small_detector.make_config(dataset=dataset)
    return input_pipeline.make_data(config, small_detector.TASK)


# The report


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"3",
        b"\xff",
        DEEP,
        b"[1]",
        b"[{}]",
        with_entry(bbox=[1, 2, 3]),
        with_entry(bbox=["a", "b", "c", "d"]),
        with_entry(bbox=[None] * 4),
        with_entry(bbox=[HUGE, 1, 1, 1]),
        with_entry(bbox=[float("inf"), 0, 1, 1]),
        with_entry(category_id=99),
        with_entry(score="x"),
        with_entry(score=None),
        with_entry(score=HUGE),
        with_entry(score=float("nan")),
        with_entry(score=[[1], [2, 3]]),
    ],
)
def test_damaged_predictions_are_left_out(boxes, tmp_path, caplog, content):
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    (tmp_path / "per_class.json").write_text('{"a": 0.5}')
    config = small_detector.make_config(workdir=str(tmp_path))
    page = visualization.render_page(config, boxes)
    assert page.startswith("<h2>AP by class</h2>")
    assert f"{path} is damaged: the report leaves it out." in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", DEEP, b"[1]", b'{"a": "x"}', b'{"a": [1]}', b'{"a": NaN}'],
)
def test_damaged_ap_by_class_is_left_out(boxes, tmp_path, caplog, content):
    path = tmp_path / "per_class.json"
    path.write_bytes(content)
    (tmp_path / "predictions.json").write_bytes(with_entry())
    config = small_detector.make_config(workdir=str(tmp_path))
    page = visualization.render_page(config, boxes)
    assert page.startswith("<h2>Evaluation images</h2>")
    assert "AP by class" not in page
    assert f"{path} is damaged: the report leaves it out." in caplog.text


@pytest.mark.parametrize("index", [-1, 10**6])
def test_mistake_without_its_image_is_left_out(classified, index):
    metrics = class_metrics.read_class_metrics(classified)
    mistakes = [{**metrics["mistakes"][0], "index": index}]
    data = input_pipeline.make_data(small_runs.make_config(), small_runs.TASK)
    split = data.source.evaluation
    assert evaluation_report._render_mistakes(mistakes, split) == ""


def test_mistake_without_a_label_is_damage(classified, tmp_path, caplog):
    metrics = class_metrics.read_class_metrics(classified)
    metrics["mistakes"] = [{**metrics["mistakes"][0], "label": 3}]
    class_metrics.write_class_metrics(tmp_path, metrics)
    config = small_runs.make_config(workdir=str(tmp_path))
    data = input_pipeline.make_data(config, small_runs.TASK)
    assert evaluation_report.render_evaluation(config, data) == ""
    assert "evaluation.json is damaged" in caplog.text


def test_summary_without_its_last_step_is_of_a_finished_run(
    classified, tmp_path
):
    folder = shutil.copytree(classified, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["last"]["step"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert recorded_run.load_run(folder, [Config]).is_finished


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a", None]},
        {"class_names": [1]},
        {"bad_images": [["x"]]},
        {"num_channels": "1"},
        {"suited_augmentation": 3},
    ],
)
def test_summary_of_other_types_is_named(tmp_path, change):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(change))
    expected = {}, [f"{path} is damaged and ignored"]
    assert metrics_log.read_summary(path) == expected


# --mode=predict


def replace(pattern, content):
    def damage(folder):
        for path in folder.glob(pattern):
            path.write_bytes(content)

    return damage


def change(name, **values):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        content.update(values)
        kept = {k: v for k, v in content.items() if v is not None}
        (folder / name).write_text(json.dumps(kept))

    return damage


def predict(folder, config, task, images):
    """Predicts the images; returns the error, or an empty string."""
    config = dataclasses.replace(
        config, workdir=str(folder), mode="predict", images=str(images)
    )
    before = sorted(folder.rglob("*"))
    try:
        runner.run(config, task)
    except RecipeError as error:
        assert sorted(folder.rglob("*")) == before
        return str(error)
    content = json.loads((folder / "predict.json").read_text())
    assert len(content["predictions"]) == 3
    return ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace("checkpoints/*", b"PK"), "no checkpoint in .* can be read"),
        (change("summary.json", class_names=["a"]), "logits.* has the shape"),
        (change("summary.json", num_channels=-1), r"images of \(8, 8, -1\)"),
        # What the summary lacks is taken from the dataset.
        (change("summary.json", num_channels=None), ""),
        (replace("summary.json", b"{torn"), ""),
    ],
)
def test_damaged_classifier_predicts_or_says_why_not(
    classified, images, tmp_path, damage, message
):
    folder = shutil.copytree(classified, tmp_path / "run")
    settings = run_dir.stored_settings(folder, Config)
    damage(folder)
    config = small_runs.make_config(**settings)
    text = predict(folder, config, small_runs.TASK, images)
    assert re.search(message, text) and "\n" not in text
    assert bool(text) == bool(message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace("model.keras", b"PK"), "neither a .keras archive nor"),
        (replace("predictions.json", b"{"), ""),
    ],
)
def test_damaged_detector_predicts_or_says_why_not(
    detected, images, tmp_path, damage, message
):
    folder = shutil.copytree(detected, tmp_path / "run")
    settings = run_dir.stored_settings(folder, DetectionConfig)
    damage(folder)
    config = small_detector.make_config(**settings)
    text = predict(folder, config, small_detector.TASK, images)
    assert message in text and "\n" not in text
    assert bool(text) == bool(message)


# A full disk


@contextlib.contextmanager
def limit_file_size(size):
    """Inside, the system lets no file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "written", "missing"),
    [
        (5, "", "lock"),
        (1000, "", "config.json"),
        (5000, "metrics.jsonl", "checkpoints/step_000000002.npz"),
        (20_000, "checkpoints/step_000000002.npz", "model.keras"),
        (60_000, "model.keras", "report.html"),
    ],
)
def test_full_disk_during_training_is_a_one_line_error(
    tmp_path, size, written, missing
):
    folder = tmp_path / "run"
    with pytest.raises(RecipeError) as caught, limit_file_size(size):
        small_runs.run(folder, **ONE_DEVICE)
    text = str(caught.value)
    assert "File too large" in text and "\n" not in text
    assert str(folder) in text and "Make room" in text
    assert (folder / written).exists() == bool(written)
    assert not (folder / missing).exists()
    assert not list(tmp_path.rglob("partial*"))
    checkpoint = folder / "checkpoints" / "step_000000002.npz"
    assert (str(checkpoint) in text) == checkpoint.exists()
    if not written:
        return
    # The same command, once there is room.
    _, entries = small_runs.run(folder, **ONE_DEVICE)
    assert [entry["step"] for entry in entries] == [1, 2]


@pytest.mark.parametrize("name", ["saved_model", "onnx"])
def test_full_disk_during_export_is_a_one_line_error(
    classified, tmp_path, name
):
    folder = shutil.copytree(classified, tmp_path / "run")
    before = sorted(folder.rglob("*"))
    config = dataclasses.replace(
        small_runs.make_config(**run_dir.stored_settings(folder, Config)),
        workdir=str(folder),
        mode="export",
        export_format=name,
    )
    with pytest.raises(RecipeError) as caught, limit_file_size(5000):
        runner.run(config, small_runs.TASK)
    text = str(caught.value)
    assert text.startswith("cannot write to ") and "File too large" in text
    assert text.endswith("the same command starts again.")
    assert sorted(folder.rglob("*")) == before
