"""What a sweep shows: tables, figures, results.json and the terminal."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from recipes.classification.config import Config
from recipes.experiments import results_table
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_figure
from recipes.experiments import sweep_progress
from recipes.experiments import sweep_report
from recipes.run_dir import runs
from tests.recipes.experiments import fake_runs
from tests.recipes.experiments.small_sweeps import cells
from tests.recipes.experiments.small_sweeps import results

ENDED = {"seconds": 120.0, "parameters": 1000, "num_replicas": 2}
LONG = (
    "--norm_kwargs='" + json.dumps({f"argument_{i}": i for i in "abcd"}) + "'"
)


def sweep(folder, *axes, accuracy=lambda cell: 0.5, rows=None, **settings):
    """The jobs of a sweep that ended, but for cells without an accuracy."""
    made = cells(folder, *axes, **settings)
    for cell in made:
        value = accuracy(cell)
        if value is not None:
            written = rows or [{"train/loss": 1.0}]
            written = [*written, {"eval/accuracy": value, "eval/loss": 0.25}]
            fake_runs.write(
                cell.config.folder, written, ENDED, **cell.config.to_dict()
            )
    return jobs_lib.make(made)


def by(**values):
    """`f(cell)`, the value of its norm in the order of seeds."""
    return lambda cell: values[cell.varied["norm"]][cell.varied.get("seed", 0)]


def table_of(jobs, x=None):
    return results_table.make([job.cell for job in jobs], x)


def drawn(figure):
    """The figure, laid out."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


def boxes(figure):
    """Where its texts are, in pixels."""
    texts = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if low <= t.get_loc() <= high]
    for legend in figure.legends:
        texts += legend.get_texts()
    return [t.get_window_extent() for t in texts if t.get_text()]


def require_legible(figure):
    """No text is cut, none lies over another."""
    drawn(figure)
    found = boxes(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for i, box in enumerate(found):
        assert box.x0 >= -1 and box.x1 <= width + 1, box
        assert box.y0 >= -1 and box.y1 <= height + 1, box
        assert not any(box.overlaps(other) for other in found[:i]), i
    for axes in figure.axes:
        assert axes.get_window_extent().height > 50
        assert axes.get_window_extent().width > 200


# The table


def test_the_table_against_numbers_by_hand(tmp_path):
    accuracies = {
        ("bn", 0.4): [0.90, 0.92, 0.97],
        ("bn", 0.1): [0.5, 0.5, 0.5],
        ("frn", 0.4): [0.8, None, 0.9],
        ("frn", 0.1): [None, 0.7, None],
    }
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn",
        "--learning_rate=0.4 | 0.1",
        "--seed=0 | 1 | 2",
        accuracy=lambda cell: accuracies[
            cell.varied["norm"], cell.varied["learning_rate"]
        ][cell.varied["seed"]],
    )
    table = table_of(jobs)

    assert (table.x, table.columns) == ("learning_rate", [0.1, 0.4])
    assert table.rows == ["--norm=bn", "--norm=frn"]
    spread = table.spread("--norm=bn", 0.4)
    assert spread.mean == pytest.approx(0.93)
    # Squares of -0.03, -0.01, 0.04 over two.
    assert spread.deviation == pytest.approx(math.sqrt(0.0026 / 2))
    assert spread.num == 3
    assert table.spread("--norm=frn", 0.1).deviation is None
    assert table.spread("--norm=bn", 0.8) is None
    assert results_table.markdown(table).splitlines() == [
        "| test top-1, % | `--learning_rate=0.1` | `--learning_rate=0.4` |",
        "| --- | ---: | ---: |",
        "| `--norm=bn` | 50.00 ± 0.00 | 93.00 ± 3.61 |",
        "| `--norm=frn` | 70.00 | 85.00 ± 7.07 |",
    ]


def test_a_table_without_x_has_one_column(tmp_path):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn",
        "--seed=0 | 1",
        accuracy=by(bn=[0.5, 0.7], frn=[None, None]),
    )
    table = table_of(jobs)
    assert (table.x, table.columns) == (None, [None])
    assert results_table.markdown(table).splitlines() == [
        "|  | test top-1, % |",
        "| --- | ---: |",
        "| `--norm=bn` | 60.00 ± 14.14 |",
        "| `--norm=frn` |  |",
    ]


def test_a_run_that_has_not_ended_is_in_no_table(tmp_path):
    (cell,) = cells(tmp_path, "--norm=bn")
    rows = fake_runs.curve(0.5)
    fake_runs.write(cell.config.folder, rows, **cell.config.to_dict())
    jobs = jobs_lib.make([cell])
    assert jobs[0].status == "waiting" and jobs[0].ended_run() is None
    assert not table_of(jobs).cells
    assert not sweep_report.make_table(jobs).cells


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("--norm=bn | frn", "--momentum=0.1 | 0.2"), "momentum"),
        (("--seed=0 | 1", "--norm=bn | frn"), None),
        (("--xla | --noxla",), None),
        (("--momentum=0.1", "--mixup=0 | 1"), "mixup"),
        (("--momentum=0.1 | 0.2", "--mixup=0 | 1"), "momentum"),
        # Only the second alternative says it.
        (("--norm=bn | frn --momentum=0.1",), None),
    ],
)
def test_along_x_is_the_first_setting_of_several_numbers(
    tmp_path, axes, expected
):
    assert table_of(sweep(tmp_path, *axes)).x == expected


def test_a_setting_that_not_all_runs_give_has_its_value_along_x(tmp_path):
    jobs = sweep(tmp_path, "--norm=bn | frn --activation=relu | frn")
    table = table_of(jobs, "activation")
    assert table.columns == ["auto", "relu"]
    assert table.rows == ["--norm=bn", "--norm=frn"]
    assert set(table.cells) == {
        ("--norm=bn", "auto"),
        ("--norm=frn", "auto"),
        ("--norm=frn", "relu"),
    }


@pytest.mark.parametrize(
    ("axis", "x", "columns"),
    [
        ("--xla | --noxla", "xla", ["`--xla`", "`--noxla`"]),
        (
            "--norm_kwargs='{\"groups\": 8}' | {}",
            "norm_kwargs",
            ["`--norm_kwargs='{\"groups\": 8}'`", "`--norm_kwargs='{}'`"],
        ),
        ("--seed=1 | 0", "seed", ["`--seed=0`", "`--seed=1`"]),
    ],
)
def test_any_setting_can_be_along_x(tmp_path, axis, x, columns):
    table = table_of(sweep(tmp_path, "--norm=gn", axis), x)
    head, _, row = results_table.markdown(table).splitlines()
    assert head == "| " + " | ".join(["test top-1, %", *columns]) + " |"
    assert row == "| `--norm=gn` | 50.00 | 50.00 |"
    drawn(sweep_figure.draw(table))


def test_rows_are_named_by_what_differs(tmp_path):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn | frn --momentum=0.5",
        "--image_size=8",
        "--seed=0",
    )
    assert table_of(jobs).rows == [
        "--norm=bn",
        "--norm=frn",
        "--norm=frn --momentum=0.5",
    ]


def test_a_bar_does_not_end_a_cell_of_markdown(tmp_path):
    jobs = sweep(tmp_path, "--dataset='folder:/a|b' | digits")
    text = results_table.markdown(table_of(jobs))
    assert "| `--dataset='folder:/a\\|b'` | 50.00 |" in text


# The figure


def test_the_figure_has_means_bars_labels_and_units(tmp_path):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn",
        "--momentum=0.5 | 0.9",
        "--seed=0 | 1",
        accuracy=by(bn=[0.6, 0.8], frn=[0.5, None]),
    )
    figure = drawn(sweep_figure.draw(table_of(jobs)))
    (axes,) = figure.axes

    assert axes.get_ylabel() == "test top-1, %"
    assert axes.get_xlabel() == "--momentum"
    assert "sample standard deviation" in axes.get_title("left")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5", "0.9"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "--norm=bn",
        "--norm=frn",
    ]
    bn, frn = axes.containers
    np.testing.assert_allclose(bn.lines[0].get_xydata()[:, 1], [70, 70])
    (bars,) = bn.lines[2]
    deviation = math.sqrt(0.02) * 100
    for (low, high), x in zip(
        bars.get_segments(), bn.lines[0].get_xdata(), strict=True
    ):
        np.testing.assert_allclose(low, [x, 70 - deviation])
        np.testing.assert_allclose(high, [x, 70 + deviation])
    # Of one run nobody knows the spread: no bar, rather than one of zero.
    np.testing.assert_allclose(frn.lines[0].get_xydata()[:, 1], [50, 50])
    (bars,) = frn.lines[2]
    assert not any(segment.size for segment in bars.get_segments())


def test_a_figure_without_x_has_a_line_a_row(tmp_path):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn",
        "--seed=0 | 1",
        accuracy=by(bn=[0.6, 0.8], frn=[0.5, 0.5]),
    )
    figure = drawn(sweep_figure.draw(table_of(jobs)))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "test top-1, %"
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "--norm=bn",
        "--norm=frn",
    ]
    assert axes.yaxis_inverted()
    points = [c.lines[0].get_xydata().tolist() for c in axes.containers]
    np.testing.assert_allclose(points, [[[70, 0]], [[50, 1]]])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([0.5, 0.9], [0, 1]),
        ([2, 4, 8, 32], [0, 0.75, 1.5, 3]),
        ([1, 2, 3], [0, 1, 2]),
        # Too near to each other to be read at their places.
        ([0, 0.01, 5], [0, 1, 2]),
        ([0.001, 0.1, 0.11], [0, 1, 2]),
        (["sgd", "lamb"], [0, 1]),
        ([None, 1], [0, 1]),
        ([False, True], [0, 1]),
    ],
)
def test_values_along_x_are_where_they_belong(columns, expected):
    places = sweep_figure._places(columns)
    np.testing.assert_allclose(np.subtract(places, places[0]), expected)


def test_between_words_there_is_no_line(tmp_path):
    axes = "--optimizer=sgd | lamb", "--momentum=0.1 | 0.2"
    jobs = sweep(tmp_path, *axes)
    words = sweep_figure.draw(table_of(jobs, "optimizer"))
    numbers = sweep_figure.draw(table_of(jobs))
    for figure, style in ((words, "None"), (numbers, "-")):
        assert figure.axes[0].containers[0].lines[0].get_linestyle() == style


NORMS = "--norm=bn | sync_bn | brn | eval_norm | gn | frn | rbn"


@pytest.mark.parametrize(
    ("axes", "x"),
    [
        (
            (NORMS + " | frn --activation=relu", "--momentum=0.1|0.2|0.3|0.9"),
            None,
        ),
        ((f"{NORMS} | gn {LONG} {LONG}",), None),
        (
            (f"--norm=bn | gn {LONG}", "--learning_rate=1e-3|1e-2|0.1|1|10"),
            None,
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
    jobs = sweep(tmp_path, *axes)
    require_legible(sweep_figure.draw(table_of(jobs, x)))


def test_labels_are_no_formulas(tmp_path):
    jobs = sweep(tmp_path, "--dataset='folder:$a_b^$' | 'folder:$c$ $d$'")
    figure = drawn(sweep_figure.draw(table_of(jobs)))
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels[0] == r"--dataset='folder:\$a_b^\$'"


# The report


def test_the_report_of_a_sweep(tmp_path):
    rows = [{"train/loss": 1.0, "train/images_per_second": 512.0}] * 2
    jobs = sweep(
        tmp_path / "out",
        "--norm=bn | frn | gn",
        "--seed=0 | 1",
        accuracy=by(bn=[0.5, 0.7], frn=[0.25, None], gn=[None, None]),
        rows=rows,
        global_batch_size=256,
    )
    jobs[-1].status, jobs[-1].error = jobs_lib.FAILED, "exit code 1: no luck"
    written = sweep_report.write(tmp_path / "out", jobs, "the command")

    assert [path.name for path in written] == [
        "results.json",
        "table.md",
        "table.png",
        "curves.png",
    ]
    assert all(path.stat().st_size for path in written)
    found = results(tmp_path / "out")
    assert found["norm=bn-seed=1"] == {
        "name": "norm=bn-seed=1",
        "settings": {"norm": "bn", "seed": 1},
        "seed": 1,
        "status": "done",
        "command": jobs[1].cell.command,
        "accuracy": 0.7,
        "loss": 0.25,
        "training_loss": 1.0,
        "evaluations": {"3.0": 0.7},
        "examples_trained_on": 3 * 256,
        "num_replicas": 2,
        "seconds_per_step": 0.5,
        "seconds": 120.0,
        "peak_memory_bytes": None,
        "parameters": 1000,
    }
    assert found["norm=gn-seed=0"]["status"] == "waiting"
    assert found["norm=gn-seed=1"]["error"] == "exit code 1: no luck"
    assert "accuracy" not in found["norm=gn-seed=1"]
    whole = json.loads((tmp_path / "out" / "results.json").read_text())
    assert whole["command"] == "the command"
    assert set(whole["versions"]) == {"python", *sweep_report.PACKAGES}
    assert whole["versions"]["tensorflow"].startswith("2.")
    assert "cores" in whole["machine"]
    page = (tmp_path / "out" / "table.md").read_text()
    values = "0.2500 ± 0.0000 | 500.0 ± 0.0 |  | 120 ± 0 |"
    for line in (
        "    the command",
        "| `--norm=bn` | 60.00 ± 14.14 |",
        f"| `--norm=bn` | 2 | 60.00 ± 14.14 | {values}",
        "| `--norm=frn` | 1 | 25.00 | 0.2500 | 500.0 |  | 120 |",
        "3 of 6 runs ended.",
        "* `norm=gn-seed=1`: exit code 1: no luck",
    ):
        assert line in page.splitlines()


def test_a_sweep_without_results_has_no_figure(tmp_path):
    jobs = sweep(tmp_path / "out", "--norm=bn", accuracy=lambda cell: None)
    (tmp_path / "out").mkdir()
    written = sweep_report.write(tmp_path / "out", jobs, "")
    assert [path.name for path in written] == ["results.json", "table.md"]
    assert "0 of 1 runs ended." in written[1].read_text()


def test_a_page_of_ended_runs_counts_and_blames_none(tmp_path):
    jobs = sweep(tmp_path / "out", "--norm=bn")
    _, page, *_ = sweep_report.write(tmp_path / "out", jobs, "")
    assert "ended" not in page.read_text() and "Failed" not in page.read_text()


def test_results_hold_no_number_that_json_cannot(tmp_path):
    jobs = sweep(
        tmp_path / "out",
        "--norm_kwargs='{\"a\": [NaN, 1.5]}'",
        rows=[{"eval/loss": None}],
        learning_rate=math.inf,
    )
    sweep_report.write(tmp_path / "out", jobs, "")
    (found,) = results(tmp_path / "out").values()
    assert found["settings"] == {"norm_kwargs": {"a": ["nan", 1.5]}}


def test_examples_are_counted_where_batches_are_filled_up(tmp_path):
    def count(step, **settings):
        folder = fake_runs.write(
            tmp_path / f"{step}{settings}",
            [{"step": step}],
            {**ENDED, "num_train": 10},
            global_batch_size=4,
            **settings,
        )
        return sweep_report._num_examples(runs.load(folder, [Config]))

    assert count(7) == 28
    # Batches of 4, 4 and 2 an epoch.
    assert count(6, drop_remainder=False) == 20
    assert count(7, drop_remainder=False) == 24


def test_many_curves_are_in_a_figure_a_value_of_x(tmp_path):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn | gn | rbn | ln",
        "--momentum=0.1 | 0.2 | 0.3",
        accuracy=lambda c: None if c.name == "norm=bn-momentum=0.2" else 0.5,
    )
    panels = sweep_report._panels(table_of(jobs))
    assert {name: len(groups) for name, groups in panels.items()} == {
        "curves-momentum=0.1": 5,
        "curves-momentum=0.2": 4,
        "curves-momentum=0.3": 5,
    }
    few = sweep_report._panels(table_of(jobs[:9]))
    assert list(few) == ["curves"] and len(few["curves"]) == 8
    assert few["curves"][0].label == "--norm=bn --momentum=0.1"


# The terminal


def shown(jobs, width=80, height=40, x=None, terminal=True):
    """What a terminal shows of jobs, in lines."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        height=height,
        force_terminal=terminal,
        color_system=None,
        legacy_windows=False,
        highlight=False,
    )
    progress = sweep_progress.SweepProgress(jobs, x, console)
    with console.capture() as capture:
        console.print(progress.view())
    return capture.get().splitlines()


def running(jobs, *numbers):
    for number in numbers:
        jobs[number].status = jobs_lib.RUNNING
        jobs[number]._ended = None
    return jobs


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("num_columns", [1, 4, 9])
def test_a_terminal_of_any_width_shows_whole_lines(
    tmp_path, width, num_columns
):
    values = "|".join(f"0.{i + 1}" for i in range(num_columns))
    jobs = sweep(
        tmp_path,
        f"--norm=bn | gn {LONG}",
        f"--momentum={values}",
        "--seed=0 | 1 | 2",
    )
    lines = shown(running(jobs, 0, -1), width, x="momentum")
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith(f"{len(jobs) - 2} of {len(jobs)} runs done")
    # A line a run: what does not fit is cut, at the end.
    assert lines[1].startswith("   50%  norm=bn-momentum=0.1-seed=0")
    assert lines[2].startswith("   50%  norm=gn-norm_kwargs=_arg")
    assert "seed=2" in lines[2] or lines[2].rstrip().endswith("…")
    # Numbers are whole: neither cut nor in two lines.
    table = " ".join(lines[3:])
    assert "…" not in table
    numbers = {word for word in table.split() if word[0].isdigit()}
    accuracies = {"50.0", "50.00"}
    assert numbers & accuracies
    assert numbers <= {*accuracies, "0.00", *values.split("|")} | set(
        "12345678"
    )
    if width == 200:
        assert "50.00 ± 0.00 (" in table
    columns = lines[4].split()
    assert columns == values.split("|")[: len(columns)]
    left_out = num_columns - len(columns)
    assert left_out == 0 or width < 100
    assert (f"{left_out} more in a wider terminal" in table) == (left_out > 0)


def test_names_are_no_markup(tmp_path):
    jobs = sweep(tmp_path, "--dataset='folder:[red]' | 'folder:[/bold]'")
    text = "\n".join(shown(jobs, 120))
    assert "folder:[red]" in text and "folder:[/bold]" in text


def test_progress_is_by_steps_or_epochs(tmp_path):
    rows = [{"step": 1, "epoch": 0.25, "train/loss": 1.0}]

    def progress(name, rows, **settings):
        (cell,) = cells(tmp_path / name, **settings)
        fake_runs.write(cell.config.folder, rows, **cell.config.to_dict())
        (job,) = jobs_lib.make([cell])
        return job.progress()

    assert progress("a", rows, train_steps=4) == 0.25
    length = {"train_steps": None}
    assert progress("b", rows, **length, train_epochs=0.5) == 0.5
    assert progress("c", rows, **length, train_epochs=0.1) == 1.0
    assert progress("d", rows, **length, train_epochs=0) == 1.0
    assert progress("e", []) == 0.0
    (cell,) = cells(tmp_path / "absent")
    assert jobs_lib.Job(cell).progress() == 0.0


def test_elsewhere_a_run_that_ends_is_a_line(tmp_path, capsys):
    jobs = sweep(
        tmp_path,
        "--norm=bn | frn | gn",
        accuracy=by(bn=[0.5], frn=[0.25], gn=[None]),
    )
    jobs[1].status = jobs_lib.RUNNING
    with sweep_progress.SweepProgress(jobs) as progress:
        progress.watch(jobs)
        jobs[1].status = jobs_lib.DONE
        progress.watch(jobs)
        jobs[2].status, jobs[2].error = jobs_lib.FAILED, "[b]x[/b] " * 30
        progress.watch(jobs)
        progress.watch(jobs)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 3 runs ended before"
    assert lines[1].startswith("2/3  norm=frn  top-1 25.00%, about ")
    assert (
        lines[2].rstrip()
        == f"3/3  norm=gn  failed, {'[b]x[/b] ' * 30}".rstrip()
    )
    assert len(lines) == 3


def test_runs_that_ended_are_read_once(tmp_path, monkeypatch):
    jobs = sweep(tmp_path, "--norm=bn | frn", "--seed=0 | 1")
    monkeypatch.setattr(runs, "load", lambda folder: pytest.fail(f"{folder}"))
    assert "50.00" in "".join(shown(jobs))
