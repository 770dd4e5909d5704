"""Runs side by side: numbers against those by hand, and the whole program."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from recipes.classification.config import Config
from recipes.experiments import aggregate as groups_lib
from recipes.experiments import cautions
from recipes.experiments import compare_report
from recipes.experiments import plots
from recipes.run_dir import runs
from tests.recipes.command_line import ROOT
from tests.recipes.experiments.fake_runs import curve
from tests.recipes.experiments.fake_runs import write
from tests.recipes.small_runs import run

PROGRAM = str(ROOT / "recipes" / "compare.py")
ENDED = {"seconds": 120.0, "parameters": 1000, "num_replicas": 1}


def load(workdir, *arguments, **settings):
    return runs.load(write(workdir, *arguments, **settings), [Config])


def compare(*arguments, columns=None):
    """Runs the program to its end: exit code, output, errors."""
    environment = dict(os.environ)
    if columns is not None:
        environment["COLUMNS"] = str(columns)
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


def cells(group):
    """The row of a group, by heading."""
    (row,) = compare_report.rows([group])
    return dict(zip(compare_report.HEADINGS, row, strict=True))


def only(*members):
    (group,) = groups_lib.make(list(members))
    return group


def sentences(*members):
    return " ".join(cautions.find(groups_lib.make(list(members))))


# Curves


def test_training_losses_are_means_over_parts_of_the_epochs(tmp_path):
    rows = [
        {"epoch": epoch, "train/loss": loss}
        for epoch, loss in [
            (0.5, 8.0),
            (1.0, 6.0),
            (1.5, 4.0),
            (2.0, None),
            (3.5, 2.0),
            (4.0, 1.0),
        ]
    ]
    ended = load(tmp_path / "a", rows, ENDED)

    # Parts of one epoch; that of epoch 2 to 3 is empty, and 1.0 ends the first.
    assert plots.losses(ended, 1.0) == {
        0: (0.75, 7.0),
        1: (1.5, 4.0),
        3: (3.75, 1.5),
    }
    # Epochs are written with four digits.
    rounded = [{"epoch": 0.6667, "train/loss": 1.0}]
    ended = load(tmp_path / "b", rounded, ENDED)
    assert list(plots.losses(ended, 1 / 3)) == [1]


def test_a_part_that_a_run_is_still_in_is_left_out(tmp_path):
    rows = [{"epoch": i / 2, "train/loss": 1.0} for i in (1, 2, 3)]
    running = load(tmp_path / "a", rows)
    ended = load(tmp_path / "b", rows, ENDED)
    started = load(tmp_path / "c", rows[:1])

    assert list(plots.losses(running, 1.0)) == [0]
    assert list(plots.losses(running, 0.5)) == [0, 1, 2]
    assert list(plots.losses(ended, 1.0)) == [0, 1]
    assert list(plots.losses(started, 1.0)) == [0]
    assert plots.losses(load(tmp_path / "d"), 0) == {}


def test_test_errors_are_percent(tmp_path):
    run = load(tmp_path / "a", curve(0.25, None, 1.0))
    assert plots.errors(run) == {1.0: (1.0, 75.0), 3.0: (3.0, 0.0)}


def test_curves_go_together_as_far_as_all_of_them_go():
    short = {1: (1.0, 10.0), 3: (3.0, 6.0)}
    long = {1: (1.0, 20.0), 2: (2.0, 9.0), 3: (3.0, 2.0), 4: (4.0, 1.0)}

    middle, beyond = plots.together([short, long])
    # Epoch 2 is one curve's alone: a mean there would jump.
    assert middle == [(1.0, 15.0, 10.0, 20.0), (3.0, 4.0, 2.0, 6.0)]
    assert beyond == [[(3.0, 2.0), (4.0, 1.0)]]

    middle, beyond = plots.together([long])
    assert [mean for _, mean, _, _ in middle] == [20.0, 9.0, 2.0, 1.0]
    assert beyond == []

    middle, beyond = plots.together([{1: (1.0, 5.0)}, {2: (2.0, 7.0)}])
    assert middle == [] and beyond == [[(1.0, 5.0)], [(2.0, 7.0)]]


def test_the_figure_shows_means_bands_and_single_runs(tmp_path):
    made = [
        load(tmp_path / "a", curve(0.5, 0.75), ENDED, seed=1),
        load(tmp_path / "b", curve(0.25), seed=2),
    ]
    figure = plots.draw(groups_lib.make(made))
    losses, errors = figure.axes

    assert errors.get_xlabel() == "epoch"
    assert errors.get_ylabel() == "test error, %"
    mean, beyond = (line.get_xydata().tolist() for line in errors.lines)
    assert mean == [[1.0, 62.5]]
    assert beyond == [[1.0, 50.0], [2.0, 25.0]]
    band = errors.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (50.0, 75.0)
    assert [text.get_text() for text in losses.texts] == ["no values yet"]


def test_a_wide_range_is_on_a_logarithmic_scale(tmp_path):
    def label(name, *accuracies):
        made = load(tmp_path / name, curve(*accuracies), ENDED)
        figure = plots.draw(groups_lib.make([made]))
        figure.savefig(io.BytesIO(), format="svg")
        return figure.axes[1].get_ylabel(), figure.axes[1].get_yscale()

    assert label("a", 0.1, 0.9) == ("test error, %", "linear")
    assert label("b", 0.1, 0.99) == ("test error, %, log scale", "log")
    assert label("c", 0.1, 0.99, 1.0) == (
        "test error, %, log scale (0 lies below it)",
        "log",
    )


def test_many_groups_look_different(tmp_path):
    made = [
        load(tmp_path / f"{i}", curve(0.5, 0.6), ENDED, dataset=f"$x_{i}^$")
        for i in range(20)
    ]
    figure = plots.draw(groups_lib.make(made))
    figure.savefig(io.BytesIO(), format="svg")
    (legend,) = figure.legends
    looks = {
        (line.get_color(), line.get_linestyle()) for line in legend.get_lines()
    }
    assert len(looks) == 20
    left, _, width, _ = legend.get_window_extent().bounds
    assert left >= 0 and left + width <= figure.bbox.width


# The table


def test_the_table_against_numbers_by_hand(tmp_path):
    def rows(last, rate):
        losses = [{"train/loss": 9.0, "train/images_per_second": rate}] * 9
        # Twenty rows of training: the last tenth is two.
        losses += [{"train/loss": 5.0}] * 9
        losses += [{"train/loss": 1.0}, {"train/loss": 2.0}]
        return [
            *losses,
            {"eval/accuracy": 0.99, "eval/loss": 0.5},
            {"eval/accuracy": last, "eval/loss": 0.25},
        ]

    memory = {**ENDED, "peak_memory_bytes": 3 << 20}
    group = only(
        load(tmp_path / "a", rows(0.90, 2560.0), memory, seed=1),
        load(tmp_path / "b", rows(0.92, 1280.0), memory, seed=2),
    )
    assert cells(group) == {
        "runs": "--model=ResNet50V2 --norm=frn",
        "seeds": "2",
        "test top-1, %": "91.00 ± 1.41",
        "best top-1, %": "99.00 ± 0.00",
        "test loss": "0.2500 ± 0.0000",
        "training loss": "1.5000 ± 0.0000",
        # 256 images at 2560 and at 1280 a second.
        "step, ms": "150.0 ± 70.7",
        "memory, MiB": "3",
        "parameters": "1,000",
        "training, min": "2.0 ± 0.0",
    }


def test_unfinished_runs_count_only_where_there_are_no_others(tmp_path):
    ended = load(tmp_path / "a", curve(0.1, 0.9), ENDED, seed=1)
    running = load(tmp_path / "b", curve(0.2), seed=2)

    both = cells(only(ended, running))
    assert (both["seeds"], both["test top-1, %"]) == ("1 of 2", "90.00")
    alone = cells(only(running))
    assert (alone["seeds"], alone["test top-1, %"]) == ("0 of 1", "20.00")
    assert alone["parameters"] == "-" and alone["training, min"] == "-"
    told = sentences(ended, running)
    assert f"Unfinished: {running.folder} (epoch 1)" in told


def test_a_value_that_is_not_finite_is_no_value(tmp_path):
    rows = [{"eval/loss": 0.5}, {"eval/loss": None}]
    lost = load(tmp_path / "a", rows, ENDED, seed=1)
    other = load(tmp_path / "b", [{"eval/loss": 0.5}] * 2, ENDED, seed=2)

    assert cells(only(lost, other))["test loss"] == "0.5000 (1 of 2)"
    assert "its newest test loss is not finite" in sentences(lost, other)


def test_a_terminal_shows_what_it_has_room_for(tmp_path):
    group = only(load(tmp_path / "a", curve(0.5), ENDED))
    for width in (60, 80, 110, 200):
        text = io.StringIO()
        compare_report.show([group], Console(file=text, width=width))
        lines = text.getvalue().splitlines()
        assert "50.00" in lines[1] or "50.00" in lines[2]
        assert all(len(line) <= width for line in lines)
        assert ("on the page" in text.getvalue()) == (width < 140)


# What to mind


def test_nothing_to_mind_says_nothing(tmp_path):
    made = [
        load(tmp_path / f"{i}", curve(0.5), ENDED, seed=i) for i in range(2)
    ]
    assert sentences(*made) == ""


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ({"dataset": "digits"}, {}, "different datasets, digits, imagenet2012"),
        (
            {"rows": curve(0.5, 0.6, 0.7)},
            {"train_epochs": 1},
            "from 1 to 3 epochs",
        ),
        ({}, {"summary": None, "train_epochs": 90}, "from 1 to 90 epochs"),
        (
            {"rows": [{"eval/examples": 10_000}]},
            {"rows": [{"eval/examples": 9_999}], "seed": 1},
            "different numbers of images: 9,999, 10,000",
        ),
        ({"seed": 3}, {"seed": 3}, "the same seed 3 count as several"),
        ({"norm": "bn"}, {"norm": "gn"}, "One run each"),
        ({"summary": {**ENDED, "skipped_updates": 4}}, {}, "skipped 4 updates"),
        ({"summary": {**ENDED, "bad_images": ["a"]}}, {}, "left out 1 images"),
    ],
)
def test_what_misleads_is_said(tmp_path, first, second, expected):
    made = [
        load(tmp_path / name, **{"rows": curve(0.5), "summary": ENDED, **given})
        for name, given in (("a", first), ("b", second))
    ]
    assert expected in sentences(*made)


# The page


def test_the_page_needs_no_other_file(tmp_path):
    made = [
        load(tmp_path / "a", curve(0.5, 0.6), ENDED, norm="bn", seed=1),
        load(tmp_path / "b", curve(0.7, 0.8), ENDED, norm="bn", seed=2),
        load(tmp_path / "c", curve(0.1), norm="<i>gn</i>"),
    ]
    groups = groups_lib.make(made)
    picture, page = compare_report.write(groups, tmp_path / "deep" / "out")

    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.count("<svg") == 1
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import", text)
    assert "<i>" not in text and "&lt;i&gt;gn" in text
    assert "70.00 ± 14.14" in text
    found = cautions.find(groups)
    assert len(found) == 2 and all(sentence in text for sentence in found)
    differing = text[text.index("Settings that differ") : text.index("Runs<")]
    assert "<th>seed</th>" in differing and "<td>1, 2</td>" in differing
    assert "<th>norm</th>" in differing and "optimizer" not in differing
    shared = text[text.index("Settings of all") :]
    assert "<td>optimizer</td>" in shared and "<td>norm</td>" not in shared


# The program


def test_two_runs_of_the_program_are_compared(tmp_path):
    summaries = {
        norm: run(tmp_path / "runs" / norm, norm=norm)[0]
        for norm in ("frn", "gn")
    }
    out = tmp_path / "out"
    code, output, errors = compare(tmp_path / "runs", f"--out={out}")

    assert code == 0, errors
    for norm, summary in summaries.items():
        (line,) = re.findall(f"--norm={norm} .*", output)
        accuracy = f"{summary['last']['eval/accuracy'] * 100:.2f}"
        assert line.split()[1:3] == ["1", accuracy]
        assert f"{summary['parameters']:,}" in line
    assert "note: One run each" in output
    assert f"page: {out}/compare.html" in output
    assert (out / "compare.png").exists() and (out / "compare.html").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "no runs given. Usage: python recipes/compare.py WORKDIR..."),
        (("absent",), "there is no folder absent"),
        ((".",), "holds no run"),
        (("run", "--out=file"), "cannot write to file: File exists"),
        (("run", "--out=file/a"), "cannot write to file/a: Not a directory"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        write(tmp_path / "run", curve(0.5))
    (tmp_path / "file").touch()
    code, output, errors = compare(*arguments)

    assert code == 1
    assert message in errors and errors.startswith("error: ")
    assert errors.count("\n") == 1 and output == ""


def test_help_is_of_this_program():
    code, output, _ = compare("--help")
    assert code == 0
    assert "WORKDIR" in output and "--out" in output and "Examples" in output
    assert "--norm\n" not in output and "absl.logging" not in output


def test_nothing_imports_tensorflow(tmp_path):
    write(tmp_path / "run", curve(0.5))
    program = (
        "import sys, pathlib; from recipes import compare; "
        f"compare.run(['{tmp_path}/run'], '{tmp_path}/out'); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False
    )
    assert done.returncode == 0


def test_a_run_that_goes_on_meanwhile_is_read(tmp_path):
    workdir = write(tmp_path / "run", [])
    code, output, errors = compare(workdir, f"--out={tmp_path / 'out'}")
    assert code == 0, errors
    assert "0 of 1" in output

    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "epoch": 1.0, "eval/accuracy": 0.5}\n{"st')
    code, output, errors = compare(workdir, f"--out={tmp_path / 'out'}")
    assert code == 0, errors
    assert "50.00" in output
