"""Tests of recipes/imagenet.py from flags to report, and of its errors."""

import json
import re

import keras
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes import imagenet
from recipes.classification.config import Config
from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.run_dir import html_report
from recipes.training import distribution
from recipes.training import runner
from tests import tfds_archives
from tests.recipes.command_line import FAST
from tests.recipes.command_line import finish
from tests.recipes.command_line import parse_flags
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import run


def test_run_writes_all_files(tmp_path):
    summary, written = run(tmp_path, train_steps=24, virtual_replicas=2)

    train = [row for row in written if "train/loss" in row]
    assert [row["step"] for row in train] == list(range(1, 25))
    keys = {"train/loss", "train/accuracy", "train/top5_accuracy"}
    assert all(keys <= set(row) for row in train)
    evaluated = [row for row in written if "eval/loss" in row]
    assert [row["step"] for row in evaluated] == [22, 24]
    assert all(row["eval/examples"] == 360 for row in evaluated)
    assert summary["last"]["eval/accuracy"] == evaluated[-1]["eval/accuracy"]
    assert summary["best"] in evaluated
    assert summary["num_replicas"] == 2
    assert json.loads((tmp_path / "config.json").read_text())["norm"] == "frn"
    assert list((tmp_path / "events").iterdir())

    page = (tmp_path / "report.html").read_text()
    assert f"{summary['last']['eval/accuracy']:.2%}" in page
    assert page.count("<svg") == 5  # Four panels and the confusion matrix.
    for color in html_report.COLORS.values():
        assert page.count(f"stroke: {color}") >= 2
    assert keras.__version__ in page and "global_batch_size" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    changed, unchanged = page.split("<details>")
    assert re.search(r"<td>train_steps</td><td>24", changed)
    assert "<td>optimizer</td><td>sgd</td>" in unchanged
    assert "<td>optimizer</td>" not in changed
    assert "a cosine to 0 at step 24." in changed

    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.count_params() == summary["parameters"]


def test_entry_holds_the_metrics_of_its_step(tmp_path):
    _, written = run(tmp_path, train_steps=3, learning_rate=0.0, norm="frn")
    config = make_config(train_steps=3, learning_rate=0.0)
    made = input_pipeline.make_data(config, TASK)
    trainer = runner.build_trainer(
        config, TASK, made, distribution.make_strategy(config)
    )
    for row, (images, labels, _) in zip(
        written, made.train(0).take(3), strict=False
    ):
        logits = trainer.model(images)
        losses = keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
        expected = float(tf.reduce_mean(losses))
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
        assert row["train/learning_rate"] == 0.0


@pytest.mark.parametrize(
    "norm", ["rbn", pytest.param("bn", marks=pytest.mark.long)]
)
def test_digits_preset_trains_with_other_norms(tmp_path, capsys, norm):
    flags = (
        "--preset=digits",
        f"--norm={norm}",
        "--model=resnet2_cifar",
        "--train_steps=2",
        f"--workdir={tmp_path}",
    )
    imagenet.run(parse_flags(Config, *flags))
    output = capsys.readouterr().out
    assert "evaluated on 360 of 360 examples" in output
    assert f"report: {tmp_path}/report.html" in output


def test_finished_run_is_not_repeated(tmp_path, capsys):
    first, written = run(tmp_path)
    # State after a kill between the last checkpoint and the end.
    (tmp_path / "model.keras").unlink()
    second, again = run(tmp_path)
    assert (tmp_path / "model.keras").exists()
    assert "training ended before, at step 3" in capsys.readouterr().out
    assert written == again
    assert first["last"] == second["last"]


def test_noise_trains_in_half_precision_for_timing(tmp_path):
    flags = {"dataset": "fake", "precision": "mixed_float16"}
    summary, written = run(tmp_path, global_batch_size=1024, **flags)
    assert [row["step"] for row in written if "train/loss" in row] == [1, 2, 3]
    assert summary["last"]["eval/examples"] == 1024
    assert summary["input/images_per_second"] > 0


def test_mode_eval_uses_the_checkpoint_in_the_workdir(tmp_path):
    run(tmp_path, mode="train", norm="bn")
    assert not any("eval/loss" in row for row in rows(tmp_path))
    summary, _ = run(tmp_path, mode="eval", norm="bn")
    again, _ = run(tmp_path, mode="eval", norm="bn")
    assert summary["last"]["eval/examples"] == 360
    assert summary["last"]["eval/loss"] == again["last"]["eval/loss"]
    assert summary["seconds"] > 0


def test_mode_eval_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="there is no run in"):
        run(tmp_path, mode="eval")


def test_indivisible_batch_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="63 cannot be split .* 2 replicas"):
        run(tmp_path, global_batch_size=63, num_replicas=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norn=frn"], "Did you mean: norm"),
        (
            [*FAST, "--norm=frm"],
            "error: unknown --norm 'frm'. Did you mean 'frn'?",
        ),
        (["--preset=digits", "extra"], "error: unexpected argument 'extra'"),
    ],
)
def test_invalid_input_prints_one_line_and_exits_with_1(
    tmp_path, arguments, message
):
    code, _, errors = finish(*arguments, f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("split", "content"),
    [("train", b"no image"), ("validation", tfds_archives.jpeg(0, 0)[:600])],
)
def test_undecodable_image_is_named(tmp_path, split, content):
    tfds_archives.folder(tmp_path / "data", num_train=4, num_eval=2)
    bad = tmp_path / "data" / split / "label1" / "bad.jpg"
    bad.write_bytes(content)
    with pytest.raises(RecipeError, match=f"cannot be decoded.* In {bad}"):
        run(
            tmp_path / "run",
            dataset=f"folder:{tmp_path / 'data'}",
            global_batch_size=4,
            drop_remainder=False,
            train_epochs=1,
            train_steps=None,
        )


def test_undecodable_images_are_skipped_and_listed(tmp_path):
    tfds_archives.folder(tmp_path / "data", num_train=2, num_eval=2)
    bad = [
        tmp_path / "data" / split / "label1" / "bad.jpg"
        for split in ("train", "validation")
    ]
    for path in bad:
        path.write_bytes(b"no image")
    summary, _ = run(
        tmp_path / "run",
        dataset=f"folder:{tmp_path / 'data'}",
        on_bad_image="skip",
        norm="bn",
        global_batch_size=4,
        drop_remainder=False,
        train_epochs=1,
        train_steps=None,
    )
    assert sorted(summary["bad_images"]) == sorted(map(str, bad))
    assert summary["last"]["eval/examples"] == summary["num_eval"] - 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(str(path) in page for path in bad)


def test_help_shows_flags_and_examples():
    _, output, _ = finish("--help")
    for word in (
        "--norm",
        "--virtual_replicas",
        "digits",
        "resumes a run",
        "Optimizer and step:",
    ):
        assert word in output


def test_imagenet_from_small_archives_over_two_replicas(tmp_path):
    data_dir = tmp_path / "data"
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    names = builder.info.features["label"].names
    tfds_archives.imagenet(manual, names, num_train=4, num_eval=13)

    summary, written = run(
        tmp_path / "run",
        dataset="imagenet2012",
        data_dir=str(data_dir),
        model="resnet8_cifar",
        norm="frn",
        global_batch_size=8,
        train_steps=2,
        image_size=64,
        virtual_replicas=2,
    )
    assert summary["num_train"] == 16
    assert summary["last"]["eval/examples"] == summary["num_eval"] == 13
    assert summary["num_replicas"] == 2
    assert [row["step"] for row in written if "train/loss" in row] == [1, 2]
    assert imagenet.__doc__.startswith("Trains an image classifier")
