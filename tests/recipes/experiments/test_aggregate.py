"""Runs out of workdirs, and what makes a group of them."""

import json
import math

import pytest

from recipes.classification.config import Config
from recipes.errors import RecipeError
from recipes.experiments import aggregate
from recipes.run_dir import runs
from tests.recipes.experiments.fake_runs import curve
from tests.recipes.experiments.fake_runs import write

ENDED = {"seconds": 12.0}


def load(tmp_path, *settings):
    """A run a dict of settings."""
    return [
        runs.load(write(tmp_path / str(i), **values), [Config])
        for i, values in enumerate(settings)
    ]


def labels(tmp_path, *settings):
    return [group.label for group in aggregate.make(load(tmp_path, *settings))]


def test_a_run_has_its_rows_config_and_summary(tmp_path):
    rows = [
        {"train/loss": 2.0, "train/images_per_second": 100.0},
        {"train/loss": None, "train/images_per_second": 400.0},
        {"train/loss": 1.0, "train/images_per_second": 200.0},
        {"eval/accuracy": 0.5},
        {"eval/accuracy": 0.4, "eval/loss": None},
    ]
    summary = {"num_replicas": 4, **ENDED}
    run = runs.load(write(tmp_path / "run", rows, summary, norm="gn"), [Config])

    assert run.config["norm"] == "gn"
    assert run.series("train/loss") == ([1.0, 3.0], [2.0, 1.0])
    assert run.final("eval/accuracy") == 0.4
    assert run.best("eval/accuracy") == 0.5
    assert run.final("eval/loss") is None
    assert run.final("eval/examples") is None and run.best("a") is None
    assert run.epoch == 5
    assert run.is_finished
    assert (run.num_replicas, run.replica_batch_size) == (4, 64)
    assert run.seconds_per_step == 256 / 200


def test_a_row_that_a_kill_tore_off_is_left_out(tmp_path):
    workdir = write(tmp_path / "run", curve(0.1, 0.2))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epoch": 3.0, "eval/accu')
    run = runs.load(workdir, [Config])

    assert run.series("eval/accuracy") == ([1.0, 2.0], [0.1, 0.2])


def test_rows_are_in_the_order_of_steps(tmp_path):
    # --mode=eval writes of the last save, after steps that were not saved.
    workdir = write(tmp_path / "run", curve(0.1, 0.2, 0.3))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "epoch": 2.0, "eval/loss": 7.0}\n')
    run = runs.load(workdir, [Config])

    assert [row["step"] for row in run.rows] == [1, 2, 2, 3]


@pytest.mark.parametrize(
    "summary, is_finished",
    [
        (None, False),
        ({"num_replicas": 1}, False),
        (ENDED, True),
        ({**ENDED, "last": {}}, True),
        ({**ENDED, "last": {"step": 9}}, False),
    ],
    ids=["none", "of an evaluation", "ended", "no last", "trained again"],
)
def test_a_run_is_finished_where_training_ended(tmp_path, summary, is_finished):
    run = runs.load(write(tmp_path / "run", curve(0.1), summary), [Config])
    assert run.is_finished == is_finished


def test_a_run_that_just_started_has_no_values(tmp_path):
    workdir = write(tmp_path / "run")
    (workdir / "metrics.jsonl").unlink()
    run = runs.load(workdir, [Config])

    assert run.rows == [] and run.epoch == 0 and not run.is_finished
    assert run.num_replicas is None and run.replica_batch_size is None
    assert run.seconds_per_step is None and run.final("eval/loss") is None


def test_a_setting_newer_than_the_run_has_its_default(tmp_path):
    workdir = write(tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    del values["random_erasing"]
    (workdir / "config.json").write_text(json.dumps(values))

    assert runs.load(workdir, [Config]).config["random_erasing"] == 0


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "holds no config.json"),
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("{}", "not a config of recipes/imagenet.py"),
        ('{"hidden_size": 768}', "not a config of recipes/imagenet.py"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        runs.load(tmp_path, [Config])
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no folder .*/absent"):
        runs.load(tmp_path / "absent", [Config])


def test_rows_of_another_program_are_left_out_and_named(tmp_path):
    workdir = write(tmp_path / "run")
    (workdir / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    run = runs.load(workdir, [Config])
    assert run.rows == []
    (fault,) = run.faults
    assert fault.endswith("metrics.jsonl: line 1 is damaged and left out")


def test_workdirs_are_found_below_a_folder_and_once(tmp_path):
    one = write(tmp_path / "all" / "deep" / "one")
    two = write(tmp_path / "all" / "two")
    write(two / "within")  # Belongs to the run, whatever it is.
    (tmp_path / "empty").mkdir()

    assert runs.find([tmp_path / "all"]) == [one, two]
    assert runs.find([two, str(tmp_path / "all"), two / ".."]) == [two, one]
    with pytest.raises(RecipeError, match="empty holds no run"):
        runs.find([tmp_path / "empty"])
    with pytest.raises(RecipeError, match="needs a name"):
        runs.find([""])


def test_a_spread_against_numbers_by_hand():
    spread = aggregate.spread([0.90, None, 0.92, 0.97])

    assert spread.mean == pytest.approx(0.93)
    # Squares of -0.03, -0.01, 0.04 over two.
    assert spread.deviation == pytest.approx(math.sqrt(0.0026 / 2))
    assert (spread.low, spread.high, spread.num) == (0.90, 0.97, 3)
    assert spread.text(digits=2, factor=100) == "93.00 ± 3.61"
    assert spread.text(1) == "0.9 ± 0.0"
    assert aggregate.spread([1234.5]).text(1) == "1,234.5"
    assert aggregate.spread([0.5]).deviation is None
    assert aggregate.spread([None]) is None


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    made = load(
        tmp_path,
        {"norm": "frn", "seed": 0, "rows": curve(0.5)},
        {"norm": "bn", "seed": 0, "rows": curve(0.3, 0.2)},
        {"norm": "frn", "seed": 1, "rows": curve(0.1, 0.7)},
    )
    frn, bn = aggregate.make(made)

    assert frn.runs == [made[0], made[2]] and bn.runs == [made[1]]
    assert frn.label == "--norm=frn" and bn.label == "--norm=bn"
    assert frn.settings == {"norm": "frn"}
    assert frn.spread("eval/accuracy") == aggregate.spread([0.5, 0.7])
    assert frn.spread(lambda run: run.epoch).mean == 1.5
    assert bn.spread("eval/loss") is None


@pytest.mark.parametrize(
    "name, value",
    [
        ("keep", 7),
        ("log_every_steps", 1),
        ("eval_batch_size", 5),
        ("data_dir", "/data"),
    ],
)
def test_what_changes_no_value_separates_no_groups(tmp_path, name, value):
    made = load(tmp_path, {}, {})
    made[1].config[name] = value
    (group,) = aggregate.make(made)
    assert group.runs == made


def test_further_settings_can_be_left_out(tmp_path):
    made = load(
        tmp_path,
        {"norm": "frn", "global_batch_size": 2},
        {"norm": "frn", "global_batch_size": 4},
        {"norm": "bn", "global_batch_size": 2},
    )
    frn, bn = aggregate.make(made, apart_from=("global_batch_size",))
    assert frn.runs == made[:2] and frn.label == "--norm=frn"
    assert len(aggregate.make(made)) == 3


def test_labels_are_flags_in_the_order_of_the_config(tmp_path):
    kwargs = {"epsilon": 1e-5, "groups": 2}
    assert labels(
        tmp_path,
        {"norm": "frn", "xla": True, "learning_rate": 1.0, "mixup": 0},
        {"norm": "gn", "norm_kwargs": kwargs, "mixup": 0.2},
        {"norm": "bn", "augmentation": "crop", "dataset": "folder:/a b"},
    ) == [
        "--dataset=imagenet2012 --norm=frn --learning_rate=1 --xla",
        (
            "--dataset=imagenet2012 --mixup=0.2 --norm=gn "
            '--norm_kwargs=\'{"epsilon": 1e-05, "groups": 2}\' '
            "--learning_rate=0.1"
        ),
        (
            "--dataset='folder:/a b' --augmentation=crop --norm=bn "
            "--learning_rate=0.1"
        ),
    ]


def test_a_label_that_would_be_empty_says_what_is_off(tmp_path):
    assert labels(
        tmp_path, {"mixup": 0, "xla": False}, {"mixup": 0.2, "xla": True}
    ) == ["--mixup=0 --noxla", "--mixup=0.2 --xla"]


def test_one_group_is_named_by_its_network(tmp_path):
    assert labels(tmp_path / "a", {"seed": 1}, {"seed": 2}) == [
        "--model=ResNet50V2 --norm=frn"
    ]
    model = {"init_model": "m.keras", "convert_to": "frn"}
    assert labels(tmp_path / "b", model) == [
        "--init_model=m.keras --convert_to=frn"
    ]


def test_labels_that_would_be_the_same_are_told_apart(tmp_path):
    assert labels(
        tmp_path,
        {"norm": "bn", "virtual_replicas": 2},
        {"norm": "bn", "virtual_replicas": 4},
        {"norm": "frn", "clip_norm": None},
        {"norm": "frn", "clip_norm": 0},
    ) == [
        "--norm=bn --virtual_replicas=2",
        "--norm=bn --virtual_replicas=4",
        "--norm=frn --clip_norm=none",
        "--norm=frn --clip_norm=0",
    ]


def test_a_preset_is_a_difference_only_where_there_is_no_other(tmp_path):
    digits = {"preset": "digits"}
    assert labels(tmp_path / "a", digits, {}) == [
        "--preset=digits",
        "--preset=none",
    ]
    assert labels(tmp_path / "b", digits, {"norm": "bn"}, {"seed": 3}) == [
        "--norm=frn",
        "--norm=bn",
    ]
