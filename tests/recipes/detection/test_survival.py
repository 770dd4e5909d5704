"""Tests that training survives kill -9 and resumes with the same command."""

import pytest

from tests.recipes import compare_checkpoints
from tests.recipes.command_line import COCO
from tests.recipes.command_line import finish
from tests.recipes.command_line import start
from tests.recipes.detection import small_detector

# Every setting that affects the weights of a detector bit for bit.
EVERYTHING = {
    **small_detector.TINY,
    "max_level": 5,
    "train_steps": 14,
    "save_every_steps": 2,
    "eval_every_steps": 7,
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
    "kills", [(6,), pytest.param((2, 4, 10), marks=pytest.mark.long)]
)
def test_killed_run_resumes_to_identical_weights(tmp_path, kills):
    flags = small_detector.arguments(
        **EVERYTHING,
        dataset=small_detector.folder(tmp_path / "drawn"),
        init_model=small_detector.classifier(tmp_path / "start.keras", "frn"),
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, _, errors = finish(*flags, f"--workdir={whole}", program=COCO)
    assert code == 0, errors
    for step in kills:
        arguments = (*flags, f"--workdir={parts}")
        with start(*arguments, program=COCO) as process:
            save = parts / "checkpoints" / f"step_{step:09d}.npz"
            compare_checkpoints.wait_for(save, process)
            process.kill()
    code, output, errors = finish(*flags, f"--workdir={parts}", program=COCO)
    assert code == 0, errors
    assert "resuming after step" in output
    assert compare_checkpoints.timeless(whole) == compare_checkpoints.timeless(
        parts
    )
    # One metrics entry per step, and two evaluations.
    assert len(compare_checkpoints.timeless(parts)) == 14 + 2
    compare_checkpoints.assert_equal_checkpoints(
        compare_checkpoints.newest(whole), compare_checkpoints.newest(parts)
    )
    for name in ("predictions.json", "per_class.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
