"""Tests of killed runs, truncated files, full disks and resuming."""

import json
import os
import signal
import time

import numpy as np
import pytest

from recipes import imagenet
from recipes.classification.config import Config
from recipes.errors import RecipeError
from recipes.run_dir import run_dir
from recipes.training import checkpoints
from tests.recipes.command_line import FAST
from tests.recipes.command_line import finish
from tests.recipes.command_line import parse_flags
from tests.recipes.command_line import start
from tests.recipes.compare_checkpoints import arrays
from tests.recipes.compare_checkpoints import assert_equal_checkpoints
from tests.recipes.compare_checkpoints import newest
from tests.recipes.compare_checkpoints import timeless
from tests.recipes.compare_checkpoints import wait_for
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import run

# Settings whose state must be part of a checkpoint.
EVERYTHING = (
    "--train_steps=30",
    "--save_every_steps=4",
    "--warmup_epochs=0.5",
    "--ema_decay=0.9",
    "--optimizer=adamw",
    "--clip_global_norm=1",
    "--mixup=0.2",
    "--random_erasing=0.2",
    "--precision=mixed_float16",
    "--best_metric=loss",
)


@pytest.mark.parametrize(
    ("num_replicas", "kills"),
    [
        (2, (8,)),
        pytest.param(1, (8,), marks=pytest.mark.long),
        pytest.param(2, (8, 20), marks=pytest.mark.long),
    ],
)
def test_killed_run_resumes_bit_for_bit(tmp_path, capsys, num_replicas, kills):
    """Kills a process, and resumes in this one."""
    flags = (*FAST, *EVERYTHING, f"--virtual_replicas={num_replicas}")
    # Keras files do not hold the random state of dropout.
    flags += (f"--init_model={tmp_path / 'start.keras'}",)
    network_with_dropout().save(tmp_path / "start.keras")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for step in kills:
        with start(*flags, f"--workdir={parts}") as process:
            saves = parts / "checkpoints"
            wait_for(saves / f"step_{step:09d}.npz", process)
            process.kill()
    for folder in (parts, whole):
        imagenet.run(parse_flags(Config, *flags, f"--workdir={folder}"))
        if folder == parts:
            assert "resuming after step" in capsys.readouterr().out
    assert timeless(whole) == timeless(parts)
    assert len(timeless(parts)) == 32
    assert_equal_checkpoints(newest(whole), newest(parts))


def network_with_dropout():
    import keras

    import keras_norm

    keras.config.set_dtype_policy("mixed_float16")
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(x)
    x = keras_norm.FRN(activation="tlu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.5)(x)
    outputs = keras.layers.Dense(10, name="head")(x)
    return keras.Model(inputs, outputs, name="with_dropout")


def test_sigterm_saves_a_checkpoint_and_exits_with_143(tmp_path):
    flags = (*FAST, "--train_steps=2000", "--save_every_steps=1000")
    with start(*flags, f"--workdir={tmp_path}") as process:
        wait_for(tmp_path / "metrics.jsonl", process)
        while len(rows(tmp_path)) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    step = rows(tmp_path)[-1]["step"]
    assert f"SIGTERM: saved after step {step}" in output
    assert newest(tmp_path).name == f"step_{step:09d}.npz"


def torn(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def emptied(data):
    return b""


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        *(pytest.param(d, marks=pytest.mark.long) for d in (torn, emptied)),
    ],
)
def test_damaged_checkpoint_falls_back_to_the_previous_one(
    tmp_path, caplog, damage
):
    flags = {"train_steps": 6, "save_every_steps": 2}
    expected, _ = run(tmp_path, **flags)
    good = arrays(newest(tmp_path))
    path = newest(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    summary, written = run(tmp_path, **flags)
    assert f"{path} cannot be read" in caplog.text
    assert "using the previous checkpoint" in caplog.text
    steps = [row["step"] for row in written if "train/loss" in row]
    assert steps == list(range(1, 7))
    assert summary["last"]["eval/loss"] == expected["last"]["eval/loss"]
    for name, value in arrays(newest(tmp_path)).items():
        np.testing.assert_array_equal(value, good[name])


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    run(tmp_path)
    for path in (tmp_path / "checkpoints").glob("step_*"):
        path.write_bytes(b"no save")
    with pytest.raises(RecipeError, match="no checkpoint in .* can be read"):
        run(tmp_path)


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    flags = {"train_steps": 6, "save_every_steps": 2, "mode": "train"}
    savez = np.savez

    def full(file, **arrays):
        if len(list((tmp_path / "checkpoints").glob("step_*"))) == 2:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        RecipeError, match="No space left.*Make room.*resumes from"
    ):
        run(tmp_path, **flags)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000000002.npz", "step_000000004.npz"]
    monkeypatch.setattr(np, "savez", savez)
    _, written = run(tmp_path, **flags)
    assert [row["step"] for row in written] == list(range(1, 7))


def test_recent_and_best_checkpoints_are_kept(tmp_path):
    made = checkpoints.CheckpointManager(tmp_path, keep=2)
    for step in range(1, 6):
        made.save({"x": np.ones(2)}, {"step": step, "seconds": 0.0}, 2)
    names = [path.name for path in made.paths()]
    assert names == [f"step_{step:09d}.npz" for step in (5, 4, 2)]
    assert not list(made.folder.glob("partial*"))


def test_checkpoint_of_another_network_is_an_error(tmp_path):
    made = checkpoints.CheckpointManager(tmp_path, keep=2)
    made.save({"x": np.ones(2)}, {"step": 1, "seconds": 0.0}, None)
    with pytest.raises(RecipeError, match="another network .* y is not"):
        checkpoints.read_checkpoint(made.path(1), ["x", "y"])


def test_workdir_in_use_is_an_error(tmp_path):
    config = make_config(workdir=str(tmp_path))
    with run_dir.open_run_dir(config):
        with pytest.raises(RecipeError, match=f"process {os.getpid()} on"):
            run(tmp_path)
    run(tmp_path, mode="train", train_steps=1)


@pytest.mark.long
def test_workdir_in_use_by_another_process_is_an_error(tmp_path):
    flags = (*FAST, f"--workdir={tmp_path}")
    with start(*flags, "--train_steps=2000") as process:
        wait_for(tmp_path / "metrics.jsonl", process)
        code, _, errors = finish(*flags, "--train_steps=2000")
        process.kill()
    assert code == 1
    assert f"in use by another run (process {process.pid}" in errors
    assert "Traceback" not in errors


def test_best_checkpoint_is_kept_across_resumes(tmp_path):
    flags = {
        "train_steps": 66,
        "learning_rate": 0.4,
        "best_metric": "loss",
        "keep": 1,
    }
    summary, written = run(tmp_path, **flags)
    evaluated = [row for row in written if "eval/loss" in row]
    best = min(evaluated, key=lambda row: row["eval/loss"])
    assert summary["best"]["step"] == best["step"]
    run(tmp_path, **flags, mode="eval", checkpoint="best")
    found = json.loads((tmp_path / "eval.json").read_text())
    assert found["step"] == best["step"]
    assert found["eval/loss"] == pytest.approx(best["eval/loss"], rel=1e-6)
    assert rows(tmp_path) == written


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_loss_that_is_not_finite_stops_training(tmp_path):
    flags = {"learning_rate": 1e30, "train_steps": 20, "schedule": "constant"}
    message = r"(loss|gradient of trainer|gradient of \S+).* at step \d+\."
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, **flags)
    for row in rows(tmp_path):
        assert np.isfinite(list(row.values())).all()


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_updates_that_are_not_finite_are_skipped_and_counted(tmp_path):
    flags = {"learning_rate": 1e30, "train_steps": 6, "schedule": "constant"}
    summary, written = run(tmp_path, **flags, nan_policy="skip")
    assert 1 <= summary["skipped_updates"] < 6
    assert written[-1]["step"] == 6


def test_deterministic_runs_are_identical(tmp_path):
    flags = (*FAST, "--deterministic", "--train_steps=4", "--norm=rbn")
    flags += ("--virtual_replicas=2",)
    folders = tmp_path / "first", tmp_path / "second"
    code, _, errors = finish(*flags, f"--workdir={folders[0]}")
    assert (code, errors) == (0, "")
    imagenet.run(parse_flags(Config, *flags, f"--workdir={folders[1]}"))
    assert timeless(folders[0]) == timeless(folders[1])
    assert_equal_checkpoints(*map(newest, folders))


def test_run_resumes_on_other_devices(tmp_path):
    flags = {"train_steps": 6, "save_every_steps": 2}
    expected, _ = run(tmp_path / "whole", **flags)
    run(tmp_path / "parts", **flags)
    for path in sorted((tmp_path / "parts" / "checkpoints").glob("step_*"))[1:]:
        os.remove(path)
    summary, _ = run(
        tmp_path / "parts", **flags, num_replicas=4, steps_per_execution=3
    )
    assert summary["num_replicas"] == 4
    assert summary["last"]["train/loss"] == pytest.approx(
        expected["last"]["train/loss"], rel=1e-5
    )
