"""Reading of finished, unfinished and damaged runs."""

import json

import pytest

from recipes.errors import RecipeError
from recipes.experiments import comparison
from recipes.experiments.programs import CONFIG_CLASSES
from recipes.experiments.programs import PROGRAMS
from recipes.run_dir import recorded_run
from tests.recipes.experiments import fake_runs
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.fake_runs import curve


def test_a_run_has_its_entries_config_and_summary(tmp_path):
    rows = [
        {"train/loss": 2.0, "train/images_per_second": 100.0},
        {"train/loss": None, "train/images_per_second": 400.0},
        {"train/loss": 1.0, "train/images_per_second": 200.0},
        {"eval/accuracy": 0.5},
        {"eval/accuracy": 0.4, "eval/loss": None},
    ]
    summary = {**ENDED, "num_replicas": 4}
    run = fake_runs.load(tmp_path / "run", rows, summary, norm="gn")

    assert run.config["norm"] == "gn"
    assert run.series("train/loss") == ([1.0, 3.0], [2.0, 1.0])
    assert run.final("eval/accuracy") == 0.4
    assert run.best("eval/accuracy") == 0.5
    assert run.final("eval/loss") is None
    assert run.final("eval/examples") is None and run.best("a") is None
    assert run.epoch == 5
    assert run.is_finished
    assert run.num_replicas == 4
    assert run.seconds_per_step == 256 / 200


def test_an_entry_that_a_kill_cut_off_is_left_out(tmp_path):
    workdir = fake_runs.write(tmp_path / "run", curve(0.1, 0.2))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epoch": 3.0, "eval/accu')
    run = recorded_run.load_run(workdir, CONFIG_CLASSES)
    assert run.series("eval/accuracy") == ([1.0, 2.0], [0.1, 0.2])


def test_entries_are_sorted_by_step(tmp_path):
    # --mode=eval evaluates the last checkpoint, after later steps were logged.
    workdir = fake_runs.write(tmp_path / "run", curve(0.1, 0.2, 0.3))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "epoch": 2.0, "eval/loss": 7.0}\n')
    run = recorded_run.load_run(workdir, CONFIG_CLASSES)
    assert [row["step"] for row in run.entries] == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("summary", "is_finished"),
    [
        (None, False),
        ({"num_replicas": 1}, False),
        (ENDED, True),
        ({**ENDED, "last": {}}, True),
        ({**ENDED, "last": {"step": 9}}, False),
    ],
    ids=["none", "of an evaluation", "ended", "no last", "trained again"],
)
def test_a_run_is_finished_if_training_ended(tmp_path, summary, is_finished):
    run = fake_runs.load(tmp_path / "run", curve(0.1), summary)
    assert run.is_finished == is_finished


def test_a_run_that_just_started_has_no_metrics(tmp_path):
    workdir = fake_runs.write(tmp_path / "run")
    (workdir / "metrics.jsonl").unlink()
    run = recorded_run.load_run(workdir, CONFIG_CLASSES)
    assert run.entries == [] and run.epoch == 0 and not run.is_finished
    assert run.num_replicas is None and run.final("eval/loss") is None
    assert run.seconds_per_step is None


def test_a_setting_that_is_newer_than_the_run_has_its_default(tmp_path):
    workdir = fake_runs.write(tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    del values["random_erasing"]
    (workdir / "config.json").write_text(json.dumps(values))
    assert (
        recorded_run.load_run(workdir, CONFIG_CLASSES).config["random_erasing"]
        == 0
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_of_an_older_run_is_recognized(tmp_path, program):
    workdir = fake_runs.write(tmp_path / "run", program=program)
    values = json.loads((workdir / "config.json").read_text())
    assert values.pop("program") == program
    (workdir / "config.json").write_text(json.dumps(values))
    run = recorded_run.load_run(workdir, CONFIG_CLASSES)
    assert comparison.get_program([run]).name == program


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json"),
        ("{", "is not a config: Expecting"),
        ("[]", "not a config of recipes/imagenet.py"),
        ("{}", "not a config of recipes/imagenet.py or recipes/coco"),
        (
            '{"hidden_size": 768}',
            "not a config of recipes/imagenet.py or recipes/coco",
        ),
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        recorded_run.load_run(tmp_path, CONFIG_CLASSES)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="folder .*/absent does not exist"):
        recorded_run.load_run(tmp_path / "absent", CONFIG_CLASSES)


def test_entries_of_another_program_are_left_out_and_reported(tmp_path):
    workdir = fake_runs.write(tmp_path / "run")
    (workdir / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    run = recorded_run.load_run(workdir, CONFIG_CLASSES)
    assert run.entries == []
    (fault,) = run.faults
    assert fault.endswith("metrics.jsonl: line 1 is damaged and left out")


def test_workdirs_are_found_at_any_depth_and_once(tmp_path):
    one = fake_runs.write(tmp_path / "all" / "deep" / "one")
    two = fake_runs.write(tmp_path / "all" / "two")
    fake_runs.write(two / "within")  # Belongs to the run `two`.
    (tmp_path / "empty").mkdir()

    assert recorded_run.find_workdirs([tmp_path / "all"]) == [one, two]
    assert recorded_run.find_workdirs(
        [two, str(tmp_path / "all"), two / ".."]
    ) == [two, one]
    with pytest.raises(RecipeError, match="empty holds no run"):
        recorded_run.find_workdirs([tmp_path / "empty"])
    with pytest.raises(RecipeError, match="needs a name"):
        recorded_run.find_workdirs([""])
