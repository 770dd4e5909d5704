"""What training survives: kill -9, and going on with the same command."""

import pytest

from tests.recipes import saves
from tests.recipes.detection import drawn
from tests.recipes.program import COCO
from tests.recipes.program import finish
from tests.recipes.program import start

# Everything that the bits of a detector depend on.
EVERYTHING = {
    **drawn.TINY,
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
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, kills):
    flags = drawn.arguments(
        **EVERYTHING,
        dataset=drawn.folder(tmp_path / "drawn"),
        init_model=drawn.classifier(tmp_path / "start.keras", "frn"),
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, _, errors = finish(*flags, f"--workdir={whole}", program=COCO)
    assert code == 0, errors
    for step in kills:
        arguments = (*flags, f"--workdir={parts}")
        with start(*arguments, program=COCO) as process:
            save = parts / "checkpoints" / f"step_{step:09d}.npz"
            saves.wait_for(save, process)
            process.kill()
    code, output, errors = finish(*flags, f"--workdir={parts}", program=COCO)
    assert code == 0, errors
    assert "going on after step" in output
    assert saves.timeless(whole) == saves.timeless(parts)
    # A row a step, and two evaluations.
    assert len(saves.timeless(parts)) == 14 + 2
    saves.require_equal_saves(saves.newest(whole), saves.newest(parts))
    for name in ("predictions.json", "per_class.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
