"""Groups of runs, their tables and figures, and the results of a sweep."""

import io
import json
import math
import shlex

import numpy as np
import pytest

from recipes import atomic_io
from recipes.experiments import plots
from recipes.experiments import results
from recipes.experiments import run_sweep
from recipes.experiments import scheduler
from recipes.experiments.programs import PROGRAMS
from tests.recipes.experiments import fake_runs
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.fake_runs import curve
from tests.recipes.experiments.small_sweeps import make_cells
from tests.recipes.experiments.small_sweeps import read_results

ACCURACY = PROGRAMS["imagenet"].score


def load(folder, *settings):
    """Writes and loads one run for each dict of settings."""
    return [
        fake_runs.load(folder / str(i), **values)
        for i, values in enumerate(settings)
    ]


def summarize(*runs, program="imagenet"):
    """Returns the only row of the table, by heading."""
    table = results.summarize(results.group_runs(runs), PROGRAMS[program])
    (row,) = table.to_dict("index").values()
    return row


def make_jobs(
    folder, *axes, accuracy=lambda cell: 0.5, rows=None, summary=ENDED, **given
):
    """Makes the jobs of a sweep that is done, except cells without accuracy."""
    cells = make_cells(folder, *axes, **given)
    for cell in cells:
        value = accuracy(cell)
        if value is not None:
            written = rows or [{"train/loss": 1.0}]
            written = [*written, {"eval/accuracy": value, "eval/loss": 0.25}]
            config = cell.config.to_dict()
            fake_runs.write(cell.config.folder, written, summary, **config)
    return [scheduler.Job(cell) for cell in cells]


def by_norm(**values):
    """Returns `f(cell)`, which looks up the accuracy of a norm and seed."""
    return lambda cell: values[cell.varied["norm"]][cell.varied.get("seed", 0)]


def make_table(jobs, x=None):
    return results.make_table(run_sweep.collect(jobs, "", x)["runs"], x)


def make_table_of(settings, x=None):
    """Makes a table of results with these settings."""
    runs = [{"settings": each, "accuracy": 0.5} for each in settings]
    return results.make_table(runs, x)


def format_table(table):
    shown = results.pivot(table, ACCURACY)
    return results.format_markdown(shown).splitlines()


# Groups


def test_mean_and_sample_deviation_match_numbers_by_hand():
    # Squares of -0.03, -0.01, 0.04 over two.
    deviation = 100 * math.sqrt(0.0026 / 2)
    text = results.format_mean([0.90, 0.92, 0.97], 2, 100)
    assert text == f"93.00 ± {deviation:.2f}" == "93.00 ± 3.61"
    assert results.format_mean([1234.5], 1) == "1,234.5"
    assert results.format_mean([1.0, None, 2.0], 1) == "1.5 ± 0.7 (2 of 3)"
    assert results.format_mean([10, 12], 0) == "11"
    assert results.format_mean([None]) == ""


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    found = load(
        tmp_path,
        {"norm": "frn", "seed": 0, "rows": curve(0.5)},
        {"norm": "bn", "seed": 0, "rows": curve(0.3, 0.2)},
        # Settings that change no metric, and 0.0, which equals 0.
        {"norm": "frn", "seed": 1, "keep": 7, "data_dir": "/a", "mixup": 0.0},
    )
    assert results.group_runs(found) == {
        "--norm=frn": [found[0], found[2]],
        "--norm=bn": [found[1]],
    }
    assert list(results.group_runs(found[1:2])) == ["all runs"]


def test_labels_are_flags_in_the_order_of_the_config(tmp_path):
    kwargs = {"epsilon": 1e-5, "groups": 2}
    found = load(
        tmp_path,
        {"norm": "frn", "xla": True, "learning_rate": 1.0},
        {"norm": "gn", "norm_kwargs": kwargs, "dataset": "folder:/a b"},
    )
    labels = map(shlex.split, results.group_runs(found))
    assert list(labels) == [
        [
            *("--dataset=imagenet2012", "--norm=frn", "--norm_kwargs={}"),
            *("--learning_rate=1", "--xla"),
        ],
        [
            *("--dataset=folder:/a b", "--norm=gn"),
            '--norm_kwargs={"epsilon": 1e-05, "groups": 2}',
            *("--learning_rate=0.1", "--noxla"),
        ],
    ]


def test_the_summary_matches_numbers_by_hand(tmp_path):
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


def test_the_summary_of_detectors_has_average_precisions(tmp_path):
    rows = [{"eval/AP": 0.25, "eval/AP50": 0.5}, {"eval/AP": 0.125}]
    run = fake_runs.load(tmp_path / "a", rows, ENDED, program="coco")
    found = summarize(run, program="coco")
    assert found["test AP, %"] == "12.50" and found["best AP, %"] == "25.00"
    assert found["test AP50, %"] == "50.00"
    assert "test top-1, %" not in found and "test loss" not in found


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


# Tables


def test_the_table_matches_numbers_by_hand(tmp_path):
    accuracies = {
        ("bn", 0.4): [0.90, 0.92, 0.97],
        ("bn", 0.1): [0.5, 0.5, 0.5],
        ("frn", 0.4): [0.8, None, 0.9],
        ("frn", 0.1): [None, 0.7, None],
    }
    jobs = make_jobs(
        tmp_path,
        "--norm=bn | frn",
        "--learning_rate=0.4 | 0.1",
        "--seed=0 | 1 | 2",
        accuracy=lambda cell: accuracies[
            cell.varied["norm"], cell.varied["learning_rate"]
        ][cell.varied["seed"]],
    )
    table = make_table(jobs)
    assert (table.x, table.columns) == ("learning_rate", [0.1, 0.4])
    assert format_table(table) == [
        "|  | `--learning_rate=0.1` | `--learning_rate=0.4` |",
        "| --- | ---: | ---: |",
        "| `--norm=bn` | 50.00 ± 0.00 | 93.00 ± 3.61 |",
        "| `--norm=frn` | 70.00 | 85.00 ± 7.07 |",
    ]


def test_a_table_without_x_has_one_column():
    settings = [{"norm": norm, "seed": s} for norm in "ab" for s in (0, 1)]
    assert format_table(make_table_of(settings)) == [
        "|  | test top-1, % |",
        "| --- | ---: |",
        "| `--norm=a` | 50.00 ± 0.00 |",
        "| `--norm=b` | 50.00 ± 0.00 |",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{"norm": "bn", "momentum": 0.1}, {"norm": "bn", "momentum": 2}], 1),
        ([{"seed": 0, "norm": "bn"}, {"seed": 1, "norm": "bn"}], None),
        ([{"xla": True}, {"xla": False}], None),
        ([{"momentum": 0.1, "mixup": 0}, {"momentum": 0.1, "mixup": 1}], 1),
        ([{"norm": "bn"}, {"norm": "frn", "momentum": 0.1}], None),
    ],
)
def test_x_is_the_first_setting_with_several_numbers(settings, expected):
    x = None if expected is None else list(settings[0])[expected]
    assert make_table_of(settings).x == x


def test_x_has_the_value_of_the_config_where_it_is_not_given(tmp_path):
    axis = "--norm=bn | frn --activation=relu | frn"
    table = make_table(make_jobs(tmp_path, axis), "activation")
    assert table.columns == ["auto", "relu"]
    assert format_table(table)[2:] == [
        "| `--norm=bn` | 50.00 |  |",
        "| `--norm=frn` | 50.00 | 50.00 |",
    ]


@pytest.mark.parametrize(
    ("x", "values", "columns"),
    [
        ("xla", [True, False], ["`--xla`", "`--noxla`"]),
        (
            "norm_kwargs",
            [{"groups": 8}, {}],
            ["`--norm_kwargs='{\"groups\": 8}'`", "`--norm_kwargs='{}'`"],
        ),
        ("clip_norm", [None, 2], ["`--clip_norm=none`", "`--clip_norm=2`"]),
        ("seed", [1, 0], ["`--seed=0`", "`--seed=1`"]),
    ],
)
def test_any_setting_can_be_x(x, values, columns):
    table = make_table_of([{"norm": "gn", x: value} for value in values], x)
    head, _, row = format_table(table)
    assert head == "| " + " | ".join(["", *columns]) + " |"
    assert row == "| `--norm=gn` | 50.00 | 50.00 |"
    plots.draw_table(table, ACCURACY).savefig(io.BytesIO())


def test_rows_are_labeled_by_the_flags_that_differ():
    settings = [
        {"norm": "bn", "image_size": 8},
        {"norm": "frn", "image_size": 8},
        {"norm": "frn", "momentum": 0.5, "image_size": 8},
    ]
    assert make_table_of(settings).rows == [
        "--norm=bn",
        "--norm=frn",
        "--norm=frn --momentum=0.5",
    ]
    assert make_table_of([{"norm": "bn"}, {"norm": "bn", "seed": 1}]).rows == [
        "--norm=bn"
    ]
    assert make_table_of([{"seed": 0}, {"seed": 1}]).rows == ["all runs"]


def test_bars_in_labels_are_escaped():
    table = make_table_of([{"dataset": "folder:/a|b"}, {"dataset": "digits"}])
    assert "| `--dataset='folder:/a\\|b'` | 50.00 |" in format_table(table)


# Figures


def test_the_figure_has_means_deviations_labels_and_units(tmp_path):
    jobs = make_jobs(
        tmp_path,
        "--norm=bn | frn",
        "--momentum=0.5 | 0.9",
        "--seed=0 | 1",
        accuracy=by_norm(bn=[0.6, 0.8], frn=[0.5, None]),
    )
    figure = plots.draw_table(make_table(jobs), ACCURACY)
    figure.savefig(io.BytesIO())
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test top-1, %"
    assert axes.get_xlabel() == "--momentum"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5", "0.9"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["--norm=bn", "--norm=frn"]
    bn, frn = axes.containers
    np.testing.assert_allclose(bn.lines[0].get_xydata(), [[0, 70], [1, 70]])
    (bars,) = bn.lines[2]
    deviation = math.sqrt(0.02) * 100
    for x, bar in enumerate(bars.get_segments()):
        ends = [[x, 70 - deviation], [x, 70 + deviation]]
        np.testing.assert_allclose(bar, ends)
    # The deviation of one run is unknown: no bar instead of one of length zero.
    np.testing.assert_allclose(frn.lines[0].get_xydata()[:, 1], [50, 50])
    (bars,) = frn.lines[2]
    assert not any(segment.size for segment in bars.get_segments())


def test_a_figure_without_x_has_one_line_per_row(tmp_path):
    jobs = make_jobs(
        tmp_path,
        "--dataset='$a_b^$' | digits",
        "--seed=0 | 1",
        accuracy=lambda cell: 0.6 + 0.2 * cell.varied["seed"],
    )
    figure = plots.draw_table(make_table(jobs), ACCURACY)
    figure.savefig(io.BytesIO())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "test top-1, %" and axes.yaxis_inverted()
    labels = [text.get_text() for text in axes.get_yticklabels()]
    # Dollar signs are not formulas.
    assert labels == [r"--dataset='\$a_b^\$'", "--dataset=digits"]
    points = axes.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(points, [[70, 0], [70, 1]])


# The results of a sweep


def test_the_results_of_a_sweep(tmp_path, monkeypatch, capsys):
    names = []
    write = atomic_io.atomic_file

    def record(path):
        names.append(path.name)
        return write(path)

    monkeypatch.setattr(atomic_io, "atomic_file", record)
    rows = [{"train/loss": 1.0, "train/images_per_second": 512.0}] * 2
    jobs = make_jobs(
        tmp_path / "out",
        "--norm=bn | frn | gn",
        "--seed=0 | 1",
        accuracy=by_norm(bn=[0.5, 0.7], frn=[0.25, None], gn=[None, None]),
        rows=rows,
        summary={**ENDED, "num_train": 99, "num_eval": 9},
        global_batch_size=256,
    )
    jobs[-1].status, jobs[-1].error = scheduler.FAILED, "exit code 1: no luck"
    written = run_sweep.write_results(tmp_path / "out", jobs, "command")

    # All of them are written atomically.
    assert names == ["results.json", "table.md", "table.png", "curves.png"]
    assert [path.name for path in written] == names
    assert all(path.stat().st_size for path in written)
    found = read_results(tmp_path / "out")
    assert found["norm=bn-seed=1"] == {
        "name": "norm=bn-seed=1",
        "settings": {"norm": "bn", "seed": 1},
        "seed": 1,
        "status": "done",
        "command": jobs[1].cell.command,
        "accuracy": 0.7,
        "best": 0.7,
        "loss": 0.25,
        "training_loss": 1.0,
        "evaluations": {"3.0": 0.7},
        "examples_trained_on": 3 * 256,
        "num_replicas": 1,
        "num_train": 99,
        "num_eval": 9,
        "seconds_per_step": 0.5,
        "seconds": 120.0,
        "peak_memory_bytes": None,
        "parameters": 1000,
    }
    assert found["norm=gn-seed=0"]["status"] == "waiting"
    assert found["norm=gn-seed=1"]["error"] == "exit code 1: no luck"
    assert "accuracy" not in found["norm=gn-seed=1"]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["command"] == "command"
    assert set(content["versions"]) == {"python", *run_sweep.PACKAGES}
    assert content["versions"]["tensorflow"].startswith("2.")
    assert "cores" in content["machine"]
    page = (tmp_path / "out" / "table.md").read_text()
    values = "0.2500 ± 0.0000 | 1.0000 ± 0.0000 | 500.0 ± 0.0 | 1,000 | 2.0"
    for text in (
        "    command\n",
        "| `--norm=bn` | 60.00 ± 14.14 |\n",
        f"| `--norm=bn` | 2 | 60.00 ± 14.14 | 60.00 ± 14.14 | {values} ± 0.0 |",
        "| `--norm=frn` | 1 | 25.00 | 25.00 | 0.2500 | 1.0000 | 500.0 | ",
        "| `--norm=gn` |  |\n",
        "3 of 6 runs are done.",
        "* `norm=gn-seed=1`: exit code 1: no luck",
    ):
        assert text in page
    assert "| `--norm=bn` | 60.00 ± 14.14 |\n" in capsys.readouterr().out


def test_a_sweep_without_finished_runs_has_no_figure(tmp_path):
    jobs = make_jobs(tmp_path / "out", "--norm=bn | frn", summary=None)
    assert [job.status for job in jobs] == ["waiting", "waiting"]
    written = run_sweep.write_results(tmp_path / "out", jobs, "")
    assert [path.name for path in written] == ["results.json", "table.md"]
    page = written[1].read_text()
    assert "| `--norm=frn` |  |" in page and "0 of 2 runs are done." in page


def test_results_hold_only_numbers_that_json_supports(tmp_path):
    jobs = make_jobs(
        tmp_path / "out",
        "--norm_kwargs='{\"a\": [NaN, 1.5]}'",
        rows=[{"eval/loss": None}],
        learning_rate=math.inf,
    )
    run_sweep.write_results(tmp_path / "out", jobs, "")
    (found,) = read_results(tmp_path / "out").values()
    assert found["settings"] == {"norm_kwargs": {"a": ["NaN", 1.5]}}


def test_examples_of_padded_batches_are_not_counted(tmp_path):
    def count(step, **settings):
        run = fake_runs.load(
            tmp_path / f"{step}{settings}",
            [{"step": step}],
            {**ENDED, "num_train": 10},
            global_batch_size=4,
            **settings,
        )
        return run_sweep.count_examples(run)

    assert count(7) == 28
    # Batches of 4, 4 and 2 per epoch.
    assert count(6, drop_remainder=False) == 20
    assert count(7, drop_remainder=False) == 24
