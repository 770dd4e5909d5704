"""Tables, figures and the report of a sweep."""

import io
import json
import math

import numpy as np
import pytest

from recipes import atomic_io
from recipes.experiments import plots
from recipes.experiments import results_table
from recipes.experiments import scheduler
from recipes.experiments import sweep_report
from recipes.experiments.programs import PROGRAMS
from tests.recipes.experiments import fake_runs
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.small_sweeps import make_cells
from tests.recipes.experiments.small_sweeps import read_results

ACCURACY = PROGRAMS["imagenet"].score
LONG = (
    "--norm_kwargs='" + json.dumps({f"argument_{i}": i for i in "abcd"}) + "'"
)


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
    runs = [job.load_run() for job in jobs]
    results = sweep_report.collect(jobs, runs, "", x)["runs"]
    return results_table.make_table(results, x)


def make_table_of(settings, x=None, accuracy=0.5):
    """Makes a table of results with these settings."""
    results = [{"settings": each, "accuracy": accuracy} for each in settings]
    return results_table.make_table(results, x)


def format_table(table):
    shown = results_table.pivot(table, ACCURACY)
    return results_table.format_markdown(shown).splitlines()


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
    table = make_table_of(settings)
    assert format_table(table) == [
        "|  | test top-1, % |",
        "| --- | ---: |",
        "| `--norm=a` | 50.00 ± 0.00 |",
        "| `--norm=b` | 50.00 ± 0.00 |",
    ]


def test_unfinished_runs_are_in_no_table(tmp_path):
    jobs = make_jobs(tmp_path, "--norm=bn | frn", summary=None)
    assert [job.status for job in jobs] == ["waiting", "waiting"]
    assert format_table(make_table(jobs))[2:] == [
        "| `--norm=bn` |  |",
        "| `--norm=frn` |  |",
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
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test top-1, %"
    assert axes.get_xlabel() == "--momentum"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5", "0.9"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["--norm=bn", "--norm=frn"]
    bn, frn = axes.containers
    np.testing.assert_allclose(bn.lines[0].get_xydata()[:, 1], [70, 70])
    (bars,) = bn.lines[2]
    deviation = math.sqrt(0.02) * 100
    for (low, high), x in zip(
        bars.get_segments(), bn.lines[0].get_xdata(), strict=True
    ):
        np.testing.assert_allclose(low, [x, 70 - deviation])
        np.testing.assert_allclose(high, [x, 70 + deviation])
    # The deviation of one run is unknown: no bar instead of one of length zero.
    np.testing.assert_allclose(frn.lines[0].get_xydata()[:, 1], [50, 50])
    (bars,) = frn.lines[2]
    assert not any(segment.size for segment in bars.get_segments())


def test_a_figure_without_x_has_one_line_per_row(tmp_path):
    jobs = make_jobs(
        tmp_path,
        "--norm=bn | frn",
        "--seed=0 | 1",
        accuracy=by_norm(bn=[0.6, 0.8], frn=[0.5, 0.5]),
    )
    (axes,) = plots.draw_table(make_table(jobs), ACCURACY).axes
    assert axes.get_xlabel() == "test top-1, %"
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["--norm=bn", "--norm=frn"] and axes.yaxis_inverted()
    (container,) = axes.containers
    points = container.lines[0].get_xydata()
    np.testing.assert_allclose(points, [[70, 0], [50, 1]])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([0.5, 0.9], [0, 1]),
        ([2, 4, 8, 32], [0, 0.75, 1.5, 3]),
        ([1, 2, 3], [0, 1, 2]),
        # Too close to each other for their labels.
        ([0, 0.01, 5], [0, 1, 2]),
        ([0.001, 0.1, 0.11], [0, 1, 2]),
        (["sgd", "lamb"], [0, 1]),
        ([None, 1], [0, 1]),
        ([False, True], [0, 1]),
    ],
)
def test_values_along_x_are_placed_in_proportion(columns, expected):
    places = plots.place_columns(columns)
    np.testing.assert_allclose(places - places[0], expected)


def test_only_numbers_are_connected_by_lines():
    names = [{"norm": "bn", "optimizer": name} for name in ("sgd", "lamb")]
    numbers = [{"norm": "bn", "momentum": value} for value in (0.1, 0.2)]
    for settings, style in ((names, "None"), (numbers, "-")):
        table = make_table_of(settings, list(settings[0])[1])
        (axes,) = plots.draw_table(table, ACCURACY).axes
        assert axes.containers[0].lines[0].get_linestyle() == style


def require_legible(figure):
    """Checks that no text is cut off or covers another one."""
    figure.savefig(io.BytesIO(), format="png")
    texts = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if low <= t.get_loc() <= high]
    for legend in figure.legends:
        texts += legend.get_texts()
    boxes = [t.get_window_extent() for t in texts if t.get_text()]
    width, height = figure.bbox.width, figure.bbox.height
    for i, box in enumerate(boxes):
        assert box.x0 >= -1 and box.x1 <= width + 1, box
        assert box.y0 >= -1 and box.y1 <= height + 1, box
        assert not any(box.overlaps(other) for other in boxes[:i]), i
    for axes in figure.axes:
        assert axes.get_window_extent().height > 50
        assert axes.get_window_extent().width > 200


NORMS = "--norm=bn | sync_bn | brn | eval_norm | gn | frn | rbn"


@pytest.mark.parametrize(
    ("axes", "x"),
    [
        (
            (NORMS + " | frn --activation=relu", "--momentum=0.1|0.2|0.3|0.9"),
            "momentum",
        ),
        ((f"{NORMS} | gn {LONG} {LONG}",), None),
        (
            (f"--norm=bn | gn {LONG}", "--learning_rate=1e-3|1e-2|0.1|1|10"),
            "learning_rate",
        ),
        (
            (
                "--norm=bn | frn | gn | rbn | ln | in",
                "--optimizer=sgd | lamb | adamw | rmsprop",
                "--momentum=0.1 | 0.2 | 0.3",
            ),
            "norm",
        ),
        (
            ("--norm=bn | frn", f"--momentum=0.9 | --norm_kwargs={{}} {LONG}"),
            "norm_kwargs",
        ),
    ],
    ids=["many", "long without x", "long", "words", "long along x"],
)
def test_figures_are_legible(tmp_path, axes, x):
    settings = [cell.varied for cell in make_cells(tmp_path, *axes)]
    table = make_table_of(settings, x)
    require_legible(plots.draw_table(table, ACCURACY))


def test_dollar_signs_in_labels_are_not_formulas():
    table = make_table_of([{"dataset": "$a_b^$"}, {"dataset": "$c$ $d$"}])
    figure = plots.draw_table(table, ACCURACY)
    figure.savefig(io.BytesIO())
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels[0] == r"--dataset='\$a_b^\$'"


# The report


def test_the_report_of_a_sweep(tmp_path, monkeypatch):
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
    written, _ = sweep_report.write_report(tmp_path / "out", jobs, "command")

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
    assert set(content["versions"]) == {"python", *sweep_report.PACKAGES}
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


def test_a_sweep_without_results_has_no_figure(tmp_path):
    jobs = make_jobs(tmp_path / "out", "--norm=bn", accuracy=lambda cell: None)
    (tmp_path / "out").mkdir()
    written, _ = sweep_report.write_report(tmp_path / "out", jobs, "")
    assert [path.name for path in written] == ["results.json", "table.md"]
    assert "0 of 1 runs are done." in written[1].read_text()


def test_results_hold_only_numbers_that_json_supports(tmp_path):
    jobs = make_jobs(
        tmp_path / "out",
        "--norm_kwargs='{\"a\": [NaN, 1.5]}'",
        rows=[{"eval/loss": None}],
        learning_rate=math.inf,
    )
    written, _ = sweep_report.write_report(tmp_path / "out", jobs, "")
    (found,) = read_results(tmp_path / "out").values()
    assert found["settings"] == {"norm_kwargs": {"a": ["nan", 1.5]}}
    text = written[1].read_text()
    assert "are done" not in text and "Failed" not in text


def test_examples_of_padded_batches_are_not_counted(tmp_path):
    def count(step, **settings):
        run = fake_runs.load(
            tmp_path / f"{step}{settings}",
            [{"step": step}],
            {**ENDED, "num_train": 10},
            global_batch_size=4,
            **settings,
        )
        return sweep_report.count_examples(run)

    assert count(7) == 28
    # Batches of 4, 4 and 2 per epoch.
    assert count(6, drop_remainder=False) == 20
    assert count(7, drop_remainder=False) == 24


def test_many_groups_have_one_figure_of_curves_per_value_of_x(tmp_path):
    def get_figures(jobs):
        written, _ = sweep_report.write_report(tmp_path, jobs, "")
        return {path.stem for path in written if path.stem[:6] == "curves"}

    axes = "--norm=bn | frn | gn | rbn | ln", "--momentum=0.1 | 0.2 | 0.3"
    jobs = make_jobs(tmp_path, *axes)
    assert get_figures(jobs) == {
        "curves-momentum=0.1",
        "curves-momentum=0.2",
        "curves-momentum=0.3",
    }
    assert get_figures(jobs[:9]) == {"curves"}
