"""Tests that training survives kill -9 and resumes with the same settings."""

import pytest

from tests.recipes import compare_checkpoints
from tests.recipes.command_line import COCO
from tests.recipes.command_line import start
from tests.recipes.detection import small_detector

# Every setting that affects the weights of a detector bit for bit.
EVERYTHING = {
    **small_detector.TINY,
    "min_level": 4,
    "anchor_size": 2,
    "train_steps": 6,
    "save_every_steps": 2,
    "eval_every_steps": 3,
    "global_batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.02,
    "ema_decay": 0.9,
    "clip_global_norm": 10,
    "warmup_epochs": 1,
    "scale_jitter_min": 0.6,
    "scale_jitter_max": 1.5,
    "flip": True,
}


@pytest.mark.parametrize(
    ("num_replicas", "kills"),
    [(1, (2,)), pytest.param(2, (2, 4), marks=pytest.mark.long)],
)
def test_killed_run_resumes_to_identical_weights(
    tmp_path, capsys, num_replicas, kills
):
    """Kills a process, and resumes in this one."""
    flags = {
        **EVERYTHING,
        "virtual_replicas": num_replicas,
        "dataset": small_detector.folder(tmp_path / "drawn"),
        "init_model": small_detector.classifier(
            tmp_path / "start.keras", "frn"
        ),
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for step in kills:
        arguments = small_detector.arguments(**flags, workdir=parts)
        with start(*arguments, program=COCO) as process:
            save = parts / "checkpoints" / f"step_{step:09d}.npz"
            compare_checkpoints.wait_for(save, process)
            process.kill()
            assert process.communicate()[1] == ""
    small_detector.run_only(parts, **flags)
    assert "resuming after step" in capsys.readouterr().out
    small_detector.run_only(whole, **flags)
    assert compare_checkpoints.timeless(whole) == compare_checkpoints.timeless(
        parts
    )
    # One metrics entry per step, and two evaluations.
    assert len(compare_checkpoints.timeless(parts)) == 6 + 2
    compare_checkpoints.assert_equal_checkpoints(
        compare_checkpoints.newest(whole), compare_checkpoints.newest(parts)
    )
    for name in ("predictions.json", "per_class.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
