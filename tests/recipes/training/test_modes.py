"""Tests of dry runs, evaluation, profiles and freezing."""

import dataclasses
import json
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_norm
from recipes.classification.config import Config
from recipes.data import input_pipeline
from recipes.detection.config import DetectionConfig
from recipes.errors import RecipeError
from recipes.models import freeze
from recipes.run_dir import run_dir
from recipes.training import distribution
from recipes.training import runner
from recipes.training.periodic_actions import make_step_schedule
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import run

ROOT = pathlib.Path(__file__).parent.parent.parent.parent


def losses(folder):
    return [row["train/loss"] for row in rows(folder) if "train/loss" in row]


@pytest.fixture(scope="module")
def plain_losses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    run(folder, train_steps=6, learning_rate=0.05)
    return losses(folder)


@pytest.mark.parametrize(
    "flags",
    [
        {"num_replicas": 2, "steps_per_execution": 4},
        {"num_replicas": 2, "xla": True},
        {"num_replicas": 2, "grad_accum_steps": 2},
        {"xla": True, "grad_accum_steps": 4},
    ],
)
def test_execution_options_do_not_change_losses(tmp_path, plain_losses, flags):
    run(tmp_path, train_steps=6, learning_rate=0.05, **flags)
    np.testing.assert_allclose(losses(tmp_path), plain_losses, rtol=2e-5)


def test_execution_stops_at_scheduled_steps():
    config = make_config(
        steps_per_execution=10, log_every_steps=8, save_every_steps=5
    )
    fake = dataclasses.make_dataclass("Data", ["num_steps", "steps_per_epoch"])
    stops = make_step_schedule(
        dataclasses.replace(config, profile_steps="3,6"), fake(25, 12)
    )
    step, found = 0, []
    while step < 25:
        step = stops.next_stop(step)
        found.append(step)
    assert found == [1, 2, 5, 6, 8, 10, 12, 15, 16, 20, 24, 25]
    assert [s for s in found if stops.logs_after(s)] == [1, 8, 12, 16, 24, 25]
    assert [s for s in found if stops.evaluates_after(s)] == [12, 24, 25]
    rarely = dataclasses.replace(config, eval_every_epochs=2)
    stops_rarely = make_step_schedule(rarely, fake(25, 12))
    assert [s for s in found if stops_rarely.evaluates_after(s)] == [24, 25]
    assert [s for s in found if stops.saves_after(s)] == [
        5,
        10,
        12,
        15,
        20,
        24,
        25,
    ]


@pytest.mark.parametrize("steps", ["1", "2,1", "0,4", "a,b", "1,2,3"])
def test_invalid_profile_steps_are_an_error(steps):
    with pytest.raises(RecipeError, match="--profile_steps takes two steps"):
        make_step_schedule(make_config(profile_steps=steps), None)


def test_profile_is_written_for_tensorboard(tmp_path):
    run(tmp_path, train_steps=4, profile_steps="2,3", mode="train")
    assert list(tmp_path.glob("events/plugins/profile/*/*.xplane.pb"))


def test_dry_run_describes_the_run_and_writes_nothing(tmp_path, capsys):
    config = make_config(
        workdir=str(tmp_path),
        dry_run=True,
        warmup_epochs=1,
        train_steps=44,
        virtual_replicas=2,
    )
    from recipes import imagenet

    imagenet.run(config)
    text = capsys.readouterr().out
    for line in (
        "--norm=frn",
        "362 parameters",
        "2, each 32 images a step",
        "44, 22 an epoch, 2 epochs",
        "dry run: nothing was trained",
    ):
        assert line in text
    assert re.search(r"input alone +[\d,]+ images/s", text)
    rates = re.findall(r"step +(\d+)  (\S+)", text)
    assert rates[0] == ("1", "0") and len(rates) == 11
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["backbone", "norm"])
def test_frozen_weights_do_not_change(tmp_path, what):
    run(tmp_path, train_steps=3, norm="bn", freeze=what, mode="train")
    model = keras.saving.load_model(tmp_path / "model.keras")
    config = make_config(norm="bn")
    made = input_pipeline.make_data(config, TASK)
    start = runner.build_trainer(
        config, TASK, made, distribution.make_strategy(config)
    ).model
    for weight, end in zip(start.weights, model.weights, strict=True):
        is_norm = "norm" in weight.path
        is_head = weight.path.startswith("logits")
        stays = is_norm if what == "norm" else not is_head
        assert np.array_equal(weight, end) == stays, weight.path


def test_freezing_everything_is_an_error():
    inputs = keras.Input((4, 4, 3))
    only_norm = keras.Model(inputs, keras_norm.FRN()(inputs))
    with pytest.raises(RecipeError, match="leaves nothing of .* to train"):
        freeze.freeze(only_norm, "norm", lambda model: [])
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(RecipeError, match="has no layers to freeze"):
        freeze.freeze(plain, "norm", lambda model: [])


def test_evaluation_uses_weight_averages_on_request(tmp_path):
    flags = {"train_steps": 22, "learning_rate": 0.4, "norm": "bn"}
    averaged, _ = run(tmp_path / "a", **flags, ema_decay=0.5)
    kept, _ = run(tmp_path / "b", **flags, ema_decay=0.5, use_ema=False)
    plain, _ = run(tmp_path / "c", **flags)
    loss = "eval/loss"
    assert kept["last"][loss] == pytest.approx(plain["last"][loss], rel=1e-5)
    assert averaged["last"][loss] != pytest.approx(
        plain["last"][loss], rel=1e-5
    )
    # The saved model is the evaluated model.
    for folder, summary in (("a", averaged), ("c", plain)):
        file = str(tmp_path / folder / "model.keras")
        runner.run(
            make_config(
                workdir=str(tmp_path / f"{folder}2"),
                mode="eval",
                checkpoint=file,
            ),
            TASK,
        )
        found = json.loads((tmp_path / f"{folder}2" / "eval.json").read_text())
        assert found[loss] == pytest.approx(summary["last"][loss], rel=1e-5)


def test_any_checkpoint_can_be_evaluated(tmp_path):
    flags = {"train_steps": 44, "keep": 3}
    _, written = run(tmp_path, **flags)
    save = tmp_path / "checkpoints" / "step_000000022.npz"
    run(tmp_path, **flags, mode="eval", checkpoint=str(save))
    found = json.loads((tmp_path / "eval.json").read_text())
    expected = [row for row in written if row["step"] == 22][-1]
    assert found["eval/loss"] == pytest.approx(expected["eval/loss"], rel=1e-6)
    assert rows(tmp_path) == written


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("newest", "takes last, best, a checkpoint file"),
        ("gone.npz", "the file does not exist"),
        ("best", "there is no run in"),
    ],
)
def test_missing_checkpoint_is_an_error(tmp_path, checkpoint, message):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, mode="eval", checkpoint=checkpoint)


def test_model_with_other_classes_cannot_be_evaluated(tmp_path):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    path = tmp_path / "three.keras"
    keras.Model(inputs, keras.layers.Dense(3)(flat)).save(path)
    with pytest.raises(
        RecipeError, match="3 outputs, but the dataset has 10 classes"
    ):
        run(tmp_path / "run", mode="eval", checkpoint=str(path))


def test_dataset_smaller_than_a_batch_is_padded(tmp_path):
    flags = {"global_batch_size": 1000, "drop_remainder": False}
    _, written = run(tmp_path, **flags, train_epochs=2, train_steps=None)
    assert [row["step"] for row in written if "train/loss" in row] == [
        1,
        2,
        3,
        4,
    ]


def test_augmented_labels_train(tmp_path):
    summary, _ = run(
        tmp_path,
        mixup=0.4,
        cutmix=1.0,
        color_jitter=0.2,
        rand_augment=5,
        label_smoothing=0.1,
        dataset="fake",
        global_batch_size=16,
        train_steps=2,
        mode="train",
    )
    assert np.isfinite(summary["last"]["train/loss"])


@pytest.mark.parametrize(
    ("optimizer", "learning_rate"),
    [("lamb", 0.4), ("adamw", 0.4), ("rmsprop", 0.04)],
)
def test_optimizers_train(tmp_path, optimizer, learning_rate):
    flags = {"learning_rate": learning_rate, "schedule": "polynomial"}
    flags |= {"mode": "train", "train_steps": 40}
    run(tmp_path, **flags, optimizer=optimizer)
    found = losses(tmp_path)
    assert np.mean(found[-5:]) < 0.99 * np.mean(found[:5])


def test_only_the_chief_writes_to_the_workdir(tmp_path):
    config = make_config(workdir=str(tmp_path))
    with run_dir.open_run_dir(config, is_chief=False) as other:
        assert other.folder != tmp_path and other.folder.is_dir()
        folder = other.folder
    assert not folder.exists() and not list(tmp_path.iterdir())


def test_run_older_than_a_setting_resumes(tmp_path):
    config = make_config(workdir=str(tmp_path))
    run_dir.write_config(config)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["mixup"]
    path.write_text(json.dumps(values))
    run_dir.check_run_dir(config)


def test_missing_tpu_is_an_error():
    with pytest.raises(RecipeError, match="found no TPU"):
        distribution.make_strategy(
            make_config(strategy="tpu", virtual_replicas=None)
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"grad_accum_steps": 3}, "must divide the 32 images of a replica"),
        (
            {"clip_norm": 1.0, "clip_value": 1.0},
            "only one of clip_norm, clip_global_norm",
        ),
        (
            {"xla": True, "norm": "sync_bn"},
            "cannot compile layers that synchronize over replicas",
        ),
        ({"strategy": "multi_worker"}, "TF_CONFIG"),
    ],
)
def test_conflicting_settings_are_an_error(tmp_path, flags, message):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, virtual_replicas=2, **flags)


@pytest.mark.parametrize("kind", [Config, DetectionConfig])
def test_every_flag_is_used_in_a_test(kind):
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    readme = (ROOT / "recipes" / "README.md").read_text()
    table = readme.split("## What could not be tested")[1]
    for field in dataclasses.fields(kind):
        name = field.name
        used = re.search(rf"--{name}\b|\b{name}=|\"{name}\":", tests)
        assert used or f"`--{name}" in table, name
