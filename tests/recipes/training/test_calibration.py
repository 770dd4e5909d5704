"""`--calibration_images`: a run that starts from a fitted model."""

import pytest

from recipes.errors import RecipeError
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import run

# One step that changes nothing.
STILL = {
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "train_steps": 1,
    "virtual_replicas": 2,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    summary, _ = run(folder, model="resnet8_cifar", norm="bn", train_steps=60)
    return str(folder / "model.keras"), summary["last"]


def test_converted_model_keeps_the_accuracy(teacher, tmp_path, capsys):
    file, before = teacher
    flags = {"init_model": file, "convert_to": "frn", **STILL}
    copied, _ = run(tmp_path / "copied", **flags)
    fitted, _ = run(
        tmp_path / "fitted", calibration_images=100, ema_decay=0.9, **flags
    )
    output = capsys.readouterr().out
    assert "fitting to 100 training images" in output
    assert "Calibrated on 88 examples" in output
    assert fitted["num_replicas"] == 2
    lost = before["eval/accuracy"] - fitted["last"]["eval/accuracy"]
    assert lost < 0.25 * (
        before["eval/accuracy"] - copied["last"]["eval/accuracy"]
    )
    # A run that goes on does not fit again.
    run(tmp_path / "fitted", calibration_images=100, ema_decay=0.9, **flags)
    assert "fitting to" not in capsys.readouterr().out


def test_distillation_on_two_replicas(teacher, tmp_path, capsys):
    file, before = teacher
    summary, _ = run(
        tmp_path / "run",
        init_model=file,
        convert_to="frn",
        calibration_images=200,
        epsilon_ratio=0.5,
        distill_steps=10,
        **STILL,
    )
    assert summary["num_replicas"] == 2
    assert "distilled 10 steps" in capsys.readouterr().out
    assert summary["last"]["eval/accuracy"] > 0.9 * before["eval/accuracy"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"calibration_images": 9}, "--calibration_images needs --convert_to"),
        (
            {"init_model": "m", "convert_to": "frn", "distill_steps": 5},
            "--distill_steps needs --calibration_images",
        ),
        (
            {
                "init_model": "m",
                "convert_to": "gn",
                "calibration_images": 9,
                "epsilon_ratio": 1.0,
            },
            "--epsilon_ratio is for --convert_to=frn",
        ),
    ],
)
def test_flags_that_need_others(flags, message):
    with pytest.raises(RecipeError, match=message):
        make_config(**flags)
