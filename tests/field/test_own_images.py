"""Users train on their own images and predict others."""

import csv
import json
import os
import shutil

import keras
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import tensorflow as tf  # noqa: E402

from recipes.classification.config import Config  # noqa: E402
from recipes.detection.config import DetectionConfig  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.training import runner  # noqa: E402
from tests.recipes import small_runs  # noqa: E402
from tests.recipes.command_line import parse_flags  # noqa: E402
from tests.recipes.detection import small_detector  # noqa: E402

CLASSES = ("cat", "chien <été>")
SIZE = 32


def run_command(*arguments, kind=Config):
    """Runs the program with a command line in this process."""
    task = small_runs.TASK if kind is Config else small_detector.TASK
    runner.run(parse_flags(kind, *arguments), task)


def make_image(label, i):
    color = ((200, 60, 40), (40, 80, 200))[label]
    noise = np.random.default_rng((label, i)).normal(0, 30, (40, 60, 3))
    return PIL.Image.fromarray(np.clip(color + noise, 0, 255).astype(np.uint8))


def write_images(folder, label):
    """Writes twelve image files of different formats."""
    folder.mkdir(parents=True)
    images = [make_image(label, i) for i in range(12)]
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    images[0].save(folder / "0.jpg", exif=turned, quality=95)
    images[1].save(folder / "日本 x.jpg")
    images[2].convert("L").save(folder / "gray.png")
    alpha = images[3].convert("RGBA")
    alpha.putalpha(100)
    alpha.save(folder / "alpha.png")
    images[4].convert("CMYK").save(folder / "cmyk.jpg")
    images[5].save(
        folder / "moves.gif", save_all=True, append_images=[make_image(0, 99)]
    )
    images[6].save(folder / "new.webp", lossless=True)
    alpha.save(folder / "alpha.webp", lossless=True)
    images[8].save(folder / "wrong.jpg", "PNG")
    images[9].save(folder / "a.bmp")
    (folder / "below").mkdir()
    images[10].save(folder / "below" / "comma, and\nline.png")
    images[11].save(folder / "UPPER.JPEG")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Trains on a folder and exports; returns the folder of both."""
    root = tmp_path_factory.mktemp("own")
    for split in ("train", "validation"):
        for label, name in enumerate(CLASSES):
            write_images(root / "set" / split / name, label)
    cat = root / "set" / "train" / "cat"
    (cat / "notes.txt").write_text("a note")
    (cat / "gone.jpg").symlink_to("nowhere.jpg")
    (cat / "empty.jpg").write_bytes(b"")
    # Even root cannot read this file.
    (cat / "secret.jpg").symlink_to("/proc/self/mem")
    run_command(
        f"--dataset=folder:{root / 'set'}",
        "--model=resnet2_cifar",
        f"--image_size={SIZE}",
        "--global_batch_size=8",
        # The last batch is padded.
        "--eval_batch_size=10",
        "--virtual_replicas=2",
        "--train_epochs=4",
        "--optimizer=adamw",
        "--learning_rate=1",
        "--on_bad_image=skip",
        f"--workdir={root / 'run'}",
    )
    run_command(f"--workdir={root / 'run'}", "--mode=export")
    return root


def predict(root, images, *arguments):
    run = root / "run"
    run_command(
        f"--workdir={run}", "--mode=predict", f"--images={images}", *arguments
    )
    with (run / "predict.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = (run / "predict.json").read_text(encoding="utf-8")
    return rows, json.loads(text)


def compute_probabilities(model, path):
    """Computes probabilities with Keras and Pillow."""
    with PIL.Image.open(path) as image:
        image = PIL.ImageOps.exif_transpose(image).convert("RGB")
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = round(min(height, width) * 0.875)
    top, left = (height - side) // 2, (width - side) // 2
    crop = pixels[top : top + side, left : left + side]
    batch = tf.image.resize(crop, (SIZE, SIZE))[None] / 127.5 - 1.0
    logits = model(batch, training=False)[0].numpy().astype(np.float64)
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def test_dataset_summary_is_one_line(own, capfd):
    run_command(f"--workdir={own / 'run'}", "--mode=eval")
    devices, first, *_ = capfd.readouterr().out.splitlines()
    assert devices.startswith("devices: 1 CPU as 2 replicas")
    assert first == (
        "26 training and 24 evaluation images, 2 classes (cat, chien <été>); "
        "ignored: 1 file (.txt), 1 broken link (train/cat/gone.jpg)"
    )


def test_unreadable_files_are_skipped_or_reported(own):
    summary = json.loads((own / "run" / "summary.json").read_text())
    left_out = [os.path.basename(name) for name in summary["bad_images"]]
    assert sorted(left_out) == ["empty.jpg", "secret.jpg"]
    assert summary["last"]["eval/examples"] == 24
    with pytest.raises(RecipeError) as caught:
        run_command(
            f"--dataset=folder:{own / 'set'}",
            "--model=resnet2_cifar",
            "--image_size=8",
            "--global_batch_size=26",
            "--train_epochs=1",
            f"--workdir={own / 'other'}",
        )
    message = str(caught.value)
    assert "\n" not in message and "--on_bad_image=skip" in message
    assert "it is empty. In" in message or "cannot be read: " in message


def test_class_names_are_stored_with_model_and_export(own):
    run = own / "run"
    summary = json.loads((run / "summary.json").read_text())
    exported = run / "export" / "saved_model" / "export.json"
    exported = json.loads(exported.read_text())
    from recipes.models import model_metadata

    metadata = model_metadata.read_metadata(run / "model.keras")
    for names in (summary, exported, metadata):
        assert names["class_names"] == list(CLASSES)
    assert metadata["keras_version"] == keras.__version__


def test_predictions_equal_the_saved_model(own):
    images = own / "set" / "train"
    rows, content = predict(own, images, "--eval_batch_size=10")
    # In the order of listed folders.
    assert len(rows) == len(content["predictions"]) == 24
    assert rows[11]["image"] == "cat/below/comma, and\nline.png"
    left_out = {each["image"]: each["reason"] for each in content["left_out"]}
    assert left_out["cat/empty.jpg"] == "cannot be decoded: it is empty"
    assert left_out["cat/secret.jpg"].startswith("cannot be read: ")
    model = keras.saving.load_model(own / "run" / "model.keras")
    for row, entry in zip(rows, content["predictions"], strict=True):
        assert row == {key: str(value) for key, value in entry.items()}
        expected = compute_probabilities(model, images / entry["image"])
        assert entry["label"] == CLASSES[expected.argmax()], entry
        # JPEG decoders round differently.
        is_exact = not entry["image"].lower().endswith(("jpg", "jpeg"))
        tolerance = 1e-5 if is_exact else 0.02
        assert entry["score"] == pytest.approx(expected.max(), abs=tolerance)


def test_class_metrics_agree_with_predictions(own):
    run_command(
        f"--workdir={own / 'run'}", "--mode=eval", "--eval_batch_size=10"
    )
    counted = json.loads((own / "run" / "evaluation.json").read_text())
    _, content = predict(own, own / "set" / "validation")
    confusion = np.zeros((2, 2), int)
    wrong = []
    for entry in content["predictions"]:
        label = entry["image"].partition("/")[0]
        place = CLASSES.index(label), CLASSES.index(entry["label"])
        confusion[place] += 1
        if label != entry["label"]:
            wrong.append((-entry["score"], entry["image"]))
    assert counted["confusion"] == confusion.tolist()
    assert counted["num_examples"] == [12, 12]
    assert counted["accuracy"] == pytest.approx(
        confusion.diagonal() / 12, abs=1e-6
    )
    mistakes = [
        os.path.relpath(each["image"], own / "set" / "validation")
        for each in counted["mistakes"]
    ]
    named = [image.replace("\n", "\\n") for _, image in wrong]
    assert sorted(mistakes) == sorted(named)
    scores = [each["score"] for each in counted["mistakes"]]
    np.testing.assert_allclose(scores, [-s for s, _ in sorted(wrong)], 1e-4)
    page = (own / "run" / "report.html").read_text()
    assert "Accuracy by class" in page and "Confusion matrix" in page
    assert "chien &lt;été&gt;" in page and "<été>" not in page
    _, mistakes = page.split("<h2>The most confident mistakes</h2>")
    shown, _ = mistakes.split("<h2>", maxsplit=1)
    assert shown.count("<figure") == min(len(wrong), 12)


def test_workdir_without_dataset_predicts_a_single_image(own, capsys):
    image = own / "set" / "validation" / "cat" / "gray.png"
    copied = own / "an image"
    copied.write_bytes(image.read_bytes())
    rows, _ = predict(own, own / "set" / "validation" / "cat")
    expected = [row for row in rows if row["image"] == "gray.png"]
    (own / "set").rename(own / "elsewhere")
    try:
        rows, content = predict(own, copied)
    finally:
        (own / "elsewhere").rename(own / "set")
    assert rows == [{**expected[0], "image": "an image"}]
    assert "1 image in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--images=nowhere"],
            "--images=nowhere: the file or folder does not exist",
        ),
        (["--images=."], None),
        ([], "--images=FOLDER_OR_FILE"),
    ],
)
def test_invalid_paths_raise_an_error(
    own, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        run_command(f"--workdir={own / 'run'}", "--mode=predict", *arguments)
    assert (message or "--images=. holds no image (.bmp,") in str(caught.value)
    with pytest.raises(RecipeError, match="there is no run in nowhere"):
        run_command("--workdir=nowhere", "--mode=predict", "--images=.")
    assert not list(tmp_path.iterdir())


def test_detector_predicts_boxes_in_pixels(tmp_path):
    dataset = small_detector.folder(tmp_path / "set", num_train=8, num_eval=5)
    tiny = {**small_detector.TINY, "dataset": dataset, "norm": "frn"}
    tiny |= {"init_model": small_detector.classifier(tmp_path / "start.keras")}
    tiny |= {"workdir": str(tmp_path / "run"), "score_threshold": 0.001}
    run_command(*small_detector.arguments(**tiny), kind=DetectionConfig)
    found = json.loads((tmp_path / "run" / "predictions.json").read_text())
    (tmp_path / "start.keras").unlink()
    images = tmp_path / "set" / "val2017"
    (images / "sub").mkdir()
    (images / "bad.jpg").write_bytes(b"no image")
    first = sorted(images.glob("*.jpg"))[0]
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    with PIL.Image.open(first) as image:
        image.save(images / "sub" / "turned.png", exif=turned)
    (tmp_path / "set").rename(tmp_path / "moved")
    run_command(
        f"--workdir={tmp_path / 'run'}",
        "--mode=predict",
        f"--images={tmp_path / 'moved' / 'val2017'}",
        kind=DetectionConfig,
    )
    content = json.loads((tmp_path / "run" / "predict.json").read_text())
    assert [each["image"] for each in content["left_out"]] == ["bad.jpg"]
    assert len(content["predictions"]) == 6
    annotations = tmp_path / "moved" / "annotations"
    annotated = json.loads((annotations / "instances_val2017.json").read_text())
    ids = {each["file_name"]: each["id"] for each in annotated["images"]}
    names = {each["id"]: each["name"] for each in annotated["categories"]}
    num_compared = 0
    for entry in content["predictions"]:
        if entry["image"] == "sub/turned.png":
            assert (entry["width"], entry["height"]) == (48, 64)
            continue
        assert (entry["width"], entry["height"]) == (64, 48)
        expected = [r for r in found if r["image_id"] == ids[entry["image"]]]
        assert len(entry["objects"]) == len(expected)
        for each, row in zip(entry["objects"], expected, strict=True):
            x, y, width, height = row["bbox"]
            box = [x, y, x + width, y + height]
            np.testing.assert_allclose(each["box"], box, atol=0.02)
            assert each["label"] == names[row["category_id"]]
            assert each["score"] == pytest.approx(row["score"], abs=1e-3)
            num_compared += 1
    assert num_compared
    with (tmp_path / "run" / "predict.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(e["objects"]) for e in content["predictions"])


@pytest.mark.parametrize("mode", ["train_and_eval", "predict", "eval"])
def test_undecodable_images_can_be_skipped_from_now_on(own, tmp_path, mode):
    run = tmp_path / "run"
    shutil.copytree(own / "run", run)
    config = json.loads((run / "config.json").read_text())
    config["on_bad_image"] = "fail"
    (run / "config.json").write_text(json.dumps(config))
    images = own / "set" / "train" / "cat"
    arguments = [f"--images={images}"] if mode == "predict" else []
    run_command(
        f"--workdir={run}",
        f"--mode={mode}",
        "--on_bad_image=skip",
        *arguments,
    )


def test_evaluation_with_another_network_names_it_alone(own):
    with pytest.raises(RecipeError) as caught:
        run_command(
            f"--workdir={own / 'run'}", "--mode=eval", "--model=resnet20_cifar"
        )
    assert "model is 'resnet2_cifar' there and 'resnet20_cifar' now. " in str(
        caught.value
    )
