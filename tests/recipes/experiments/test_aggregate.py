"""Groups of runs and their metrics."""

import json
import math
import shlex

import pytest

from recipes.errors import RecipeError
from recipes.experiments import aggregate
from recipes.experiments.programs import CONFIG_CLASSES
from recipes.experiments.programs import PROGRAMS
from recipes.run_dir import recorded_run
from tests.recipes.experiments import fake_runs
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.fake_runs import curve

IMAGENET = PROGRAMS["imagenet"]


def load(folder, *settings):
    """Writes and loads one run for each dict of settings."""
    return [
        fake_runs.load(folder / str(i), **values)
        for i, values in enumerate(settings)
    ]


def get_labels(folder, *settings):
    return list(aggregate.group_runs(load(folder, *settings)))


def summarize(*members, program=IMAGENET):
    """Returns the only row of the table, by heading."""
    groups = aggregate.group_runs(list(members))
    (row,) = aggregate.summarize(groups, program).to_dict("index").values()
    return row


def test_mean_and_sample_deviation_match_numbers_by_hand():
    # Squares of -0.03, -0.01, 0.04 over two.
    deviation = 100 * math.sqrt(0.0026 / 2)
    text = aggregate.format_mean([0.90, 0.92, 0.97], 2, 100)
    assert text == f"93.00 ± {deviation:.2f}" == "93.00 ± 3.61"
    assert aggregate.format_mean([1234.5], 1) == "1,234.5"
    assert aggregate.format_mean([1.0, None, 2.0], 1) == "1.5 ± 0.7 (2 of 3)"
    assert aggregate.format_mean([10, 12], 0) == "11"
    assert aggregate.format_mean([None]) == ""


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    found = load(
        tmp_path,
        {"norm": "frn", "seed": 0, "rows": curve(0.5)},
        {"norm": "bn", "seed": 0, "rows": curve(0.3, 0.2)},
        {"norm": "frn", "seed": 1, "rows": curve(0.1, 0.7)},
    )
    assert aggregate.group_runs(found) == {
        "--norm=frn": [found[0], found[2]],
        "--norm=bn": [found[1]],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep", 7),
        ("log_every_steps", 1),
        ("eval_batch_size", 5),
        ("data_dir", "/data"),
        ("mixup", 0.0),  # Equal to 0.
    ],
)
def test_settings_that_change_no_metric_do_not_separate_groups(
    tmp_path, name, value
):
    found = load(tmp_path, {"mixup": 0}, {"mixup": 0, name: value})
    assert list(aggregate.group_runs(found).values()) == [found]


def test_labels_are_flags_in_the_order_of_the_config(tmp_path):
    kwargs = {"epsilon": 1e-5, "groups": 2}
    labels = get_labels(
        tmp_path,
        {"norm": "frn", "xla": True, "learning_rate": 1.0, "mixup": 0},
        {"norm": "gn", "norm_kwargs": kwargs, "mixup": 0.2},
        {"norm": "bn", "augmentation": "crop", "dataset": "folder:/a b"},
    )
    assert [shlex.split(label) for label in labels] == [
        ["--dataset=imagenet2012", "--norm=frn", "--learning_rate=1", "--xla"],
        [
            "--dataset=imagenet2012",
            "--mixup=0.2",
            "--norm=gn",
            '--norm_kwargs={"epsilon": 1e-05, "groups": 2}',
            "--learning_rate=0.1",
        ],
        [
            "--dataset=folder:/a b",
            "--augmentation=crop",
            "--norm=bn",
            "--learning_rate=0.1",
        ],
    ]


def test_an_empty_label_shows_unused_settings(tmp_path):
    assert get_labels(
        tmp_path, {"mixup": 0, "xla": False}, {"mixup": 0.2, "xla": True}
    ) == ["--mixup=0 --noxla", "--mixup=0.2 --xla"]


def test_equal_labels_show_unused_settings(tmp_path):
    assert get_labels(
        tmp_path,
        {"norm": "bn", "clip_norm": None},
        {"norm": "frn", "clip_norm": None},
        {"norm": "frn", "clip_norm": 0},
    ) == [
        "--norm=bn",
        "--norm=frn --clip_norm=none",
        "--norm=frn --clip_norm=0",
    ]


def test_a_single_group_is_labeled_by_its_network(tmp_path):
    assert get_labels(tmp_path / "a", {"seed": 1}, {"seed": 2}) == [
        "--model=ResNet50V2 --norm=frn"
    ]
    model = {"init_model": "m.keras", "convert_to": "frn"}
    assert get_labels(tmp_path / "b", model) == [
        "--init_model=m.keras --convert_to=frn"
    ]


def test_presets_separate_groups_only_without_another_difference(tmp_path):
    digits = {"preset": "digits"}
    assert get_labels(tmp_path / "a", digits, {}) == [
        "--preset=digits",
        "--preset=none",
    ]
    assert get_labels(tmp_path / "b", digits, {"norm": "bn"}, {"seed": 3}) == [
        "--norm=frn",
        "--norm=bn",
    ]


def test_the_table_matches_numbers_by_hand(tmp_path):
    def rows(last, rate):
        losses = [{"train/loss": 9.0, "train/images_per_second": rate}] * 9
        # Twenty training entries: the last tenth is two.
        losses += [{"train/loss": 5.0}] * 9
        losses += [{"train/loss": 1.0}, {"train/loss": 2.0}]
        return [
            *losses,
            {"eval/accuracy": 0.99, "eval/loss": 0.5},
            {"eval/accuracy": last, "eval/loss": 0.25},
        ]

    memory = {**ENDED, "peak_memory_bytes": 3 << 20}
    assert summarize(
        fake_runs.load(tmp_path / "a", rows(0.90, 2560.0), memory, seed=1),
        fake_runs.load(tmp_path / "b", rows(0.92, 1280.0), memory, seed=2),
    ) == {
        "seeds": "2",
        "test top-1, %": "91.00 ± 1.41",
        "best top-1, %": "99.00 ± 0.00",
        "test loss": "0.2500 ± 0.0000",
        "training loss": "1.5000 ± 0.0000",
        # 256 images at 2560 and at 1280 per second.
        "step, ms": "150.0 ± 70.7",
        "memory, MiB": "3",
        "parameters": "1,000",
        "training, min": "2.0 ± 0.0",
    }


def test_the_table_of_detectors_has_average_precisions(tmp_path):
    rows = [{"eval/AP": 0.25, "eval/AP50": 0.5}, {"eval/AP": 0.125}]
    run = fake_runs.load(tmp_path / "a", rows, ENDED, program="coco")
    assert aggregate.get_program([run]) is PROGRAMS["coco"]
    found = summarize(run, program=PROGRAMS["coco"])
    assert found["test AP, %"] == "12.50" and found["best AP, %"] == "25.00"
    assert found["test AP50, %"] == "50.00"
    assert "test top-1, %" not in found and "test loss" not in found


def test_runs_of_different_programs_are_refused(tmp_path):
    members = [
        fake_runs.load(tmp_path / name, program=name)
        for name in ("imagenet", "coco")
    ]
    with pytest.raises(RecipeError, match="different programs") as caught:
        aggregate.get_program(members)
    assert all(str(run.folder) in str(caught.value) for run in members)


def test_unfinished_runs_count_only_without_finished_ones(tmp_path):
    ended = fake_runs.load(tmp_path / "a", curve(0.1, 0.9), ENDED, seed=1)
    running = fake_runs.load(tmp_path / "b", curve(0.2), seed=2)
    both, alone = summarize(ended, running), summarize(running)
    assert (both["seeds"], both["test top-1, %"]) == ("1 of 2", "90.00")
    assert (alone["seeds"], alone["test top-1, %"]) == ("0 of 1", "20.00")


def test_non_finite_metrics_are_left_out_and_counted(tmp_path):
    rows = [{"eval/loss": 0.5}, {"eval/loss": None}]
    lost = fake_runs.load(tmp_path / "a", rows, ENDED, seed=1)
    other = fake_runs.load(tmp_path / "b", rows[:1], ENDED, seed=2)
    assert summarize(lost, other)["test loss"] == "0.5000 (1 of 2)"


# Runs


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
    assert aggregate.get_program([run]).name == program


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
