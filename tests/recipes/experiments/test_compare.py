"""Comparison of runs: curves, notes, the page and the program."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest

from recipes.experiments import aggregate
from recipes.experiments import compare_report
from recipes.experiments import plots
from recipes.experiments.programs import PROGRAMS
from tests.recipes.command_line import ROOT
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.fake_runs import curve
from tests.recipes.experiments.fake_runs import load
from tests.recipes.experiments.fake_runs import write

COMPARE = str(ROOT / "recipes" / "compare.py")
IMAGENET = PROGRAMS["imagenet"]


def finish(*arguments):
    """Runs the program and returns exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", COMPARE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def get_notes(*runs):
    groups = aggregate.group_runs(list(runs))
    return " ".join(compare_report.find_notes(groups))


def draw(*runs, program=IMAGENET):
    return plots.draw_curves(aggregate.group_runs(list(runs)), program)


# Curves


def test_training_losses_are_averaged_over_parts_of_the_epochs(tmp_path):
    epochs = (0.5, 1.0, 1.5, 2.0, 3.5, 4.0)
    losses = (8.0, 6.0, 4.0, None, 2.0, 1.0)
    rows = [
        {"epoch": epoch, "train/loss": loss}
        for epoch, loss in zip(epochs, losses, strict=True)
    ]
    run = load(tmp_path / "a", rows, ENDED)
    # 1.0 ends the first part; the part from 2 to 3 is empty.
    found = plots.average_losses(run, 1.0)
    assert found.to_dict() == {1: 7.0, 2: 4.0, 4: 1.5}
    # Epochs are rounded to four digits.
    rounded = [{"epoch": 0.6667, "train/loss": 1.0}]
    found = plots.average_losses(load(tmp_path / "b", rounded, ENDED), 1 / 3)
    np.testing.assert_allclose(found.index, [2 / 3])
    assert plots.average_losses(load(tmp_path / "c"), 0).empty


def test_curves_have_means_and_bands_where_all_runs_have_values(tmp_path):
    figure = draw(
        load(tmp_path / "a", curve(0.5, 0.75, 1.0), ENDED, seed=1),
        load(tmp_path / "b", curve(0.25, None, 0.5), seed=2),
    )
    losses, errors = figure.axes
    assert errors.get_xlabel() == "epoch"
    assert errors.get_ylabel() == "test error, %"
    *single, mean = [line.get_xydata().tolist() for line in errors.lines]
    # Epoch 2 belongs to one run alone: its mean would jump.
    assert mean == [[1.0, 62.5], [3.0, 25.0]]
    assert single == [
        [[1.0, 50.0], [2.0, 25.0], [3.0, 0.0]],
        [[1.0, 75.0], [3.0, 50.0]],
    ]
    band = errors.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.0, 75.0)
    assert [text.get_text() for text in losses.texts] == ["no values yet"]


def test_curves_of_detectors_show_average_precision(tmp_path):
    run = load(tmp_path / "a", curve(0.25, key="eval/AP"), program="coco")
    axes = draw(run, program=PROGRAMS["coco"]).axes[1]
    assert axes.get_ylabel() == "test AP, %"
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 25.0]]


def test_wide_ranges_have_a_logarithmic_scale(tmp_path):
    def get_scale(name, *accuracies):
        figure = draw(load(tmp_path / name, curve(*accuracies), ENDED))
        figure.savefig(io.BytesIO(), format="svg")
        return figure.axes[1].get_ylabel(), figure.axes[1].get_yscale()

    assert get_scale("a", 0.1, 0.9) == ("test error, %", "linear")
    log = ("test error, %, log scale", "log")
    assert get_scale("b", 0.1, 0.99) == get_scale("c", 0.1, 0.99, 1.0) == log


def test_many_groups_are_distinguishable(tmp_path):
    figure = draw(
        *(
            load(tmp_path / f"{i}", curve(0.5), ENDED, dataset=f"$x_{i}^$")
            for i in range(20)
        )
    )
    figure.savefig(io.BytesIO(), format="svg")
    (legend,) = figure.legends
    looks = {
        (line.get_color(), line.get_linestyle()) for line in legend.get_lines()
    }
    assert len(looks) == 20
    left, _, width, _ = legend.get_window_extent().bounds
    assert left >= 0 and left + width <= figure.bbox.width


# Notes


def test_comparable_runs_have_no_notes(tmp_path):
    runs = [
        load(tmp_path / f"{i}", curve(0.5), ENDED, seed=i) for i in range(2)
    ]
    assert get_notes(*runs) == ""


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"dataset": "digits"}, {}, "different datasets: digits, imagenet2012"),
        (
            {"rows": curve(0.5, 0.6, 0.7)},
            {"train_epochs": 1},
            "from 1 to 3 epochs",
        ),
        ({}, {"summary": None, "train_epochs": 90}, "from 1 to 90 epochs"),
        ({"seed": 1}, {"summary": None}, "b (epoch 1). The table leaves"),
        (
            {"rows": [{"eval/examples": 10_000}]},
            {"rows": [{"eval/examples": 9_999}], "seed": 1},
            "different numbers of examples: 9,999, 10,000",
        ),
        ({"seed": 3}, {"seed": 3}, "have the same seed"),
        ({"norm": "bn"}, {"norm": "gn"}, "Each row is a single run"),
        ({"summary": {**ENDED, "skipped_updates": 4}}, {}, "skipped 4 non-"),
        ({"summary": {**ENDED, "bad_images": ["a"]}}, {}, "skipped 1 images"),
        ({"rows": [{"eval/loss": None}]}, {}, "The last test loss of"),
    ],
)
def test_misleading_differences_are_noted(tmp_path, first, second, expected):
    runs = [
        load(tmp_path / name, **{"rows": curve(0.5), "summary": ENDED, **given})
        for name, given in (("a", first), ("b", second))
    ]
    assert expected in get_notes(*runs)


# The page


def test_the_page_is_a_single_file(tmp_path):
    groups = aggregate.group_runs(
        [
            load(tmp_path / "a", curve(0.5, 0.6), ENDED, norm="bn", seed=1),
            load(tmp_path / "b", curve(0.7, 0.8), ENDED, norm="bn", seed=2),
            load(tmp_path / "c", curve(0.1), norm="<i>gn</i>"),
        ]
    )
    picture, page, _, notes = compare_report.write_comparison(
        groups, IMAGENET, tmp_path / "deep" / "out"
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.count("<svg") == 1
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import", text)
    assert "<i>" not in text and "&lt;i&gt;gn" in text
    assert "70.00 ± 14.14" in text
    assert len(notes) == 2 and all(note in text for note in notes)
    differing = text[text.index("Settings that differ") : text.index("Runs<")]
    assert "<th>seed</th>" in differing and "<td>1, 2</td>" in differing
    assert "<th>norm</th>" in differing and "optimizer" not in differing
    shared = text[text.index("Shared settings") :]
    assert "<td>optimizer</td>" in shared and "<td>norm</td>" not in shared


# The program


def test_the_program_prints_a_table_and_writes_the_page(tmp_path):
    # The second run is still being trained.
    write(tmp_path / "runs" / "frn", curve(0.5), ENDED)
    running = write(tmp_path / "runs" / "gn", norm="gn")
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "epoch": 1.0, "eval/accuracy": 0.25}\n{"st')
    out = tmp_path / "out"
    code, output, errors = finish(tmp_path / "runs", f"--out={out}")
    assert code == 0, errors
    for name, values in (
        ("frn", ["1", "50.00", "50.00"]),
        ("gn", ["0", "of", "1", "25.00", "25.00"]),
    ):
        (line,) = re.findall(f"--norm={name} .*", output)
        assert line.split()[1 : len(values) + 1] == values
    assert "note: Each row is a single run" in output
    assert f"page: {out}/compare.html" in output
    assert (out / "compare.png").exists() and (out / "compare.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no runs given. Usage: python recipes/compare.py WORKDIR..."),
        (("absent",), "the folder absent does not exist"),
        ((".",), "holds no run"),
        (("run", "--out=file"), "cannot write to file: File exists"),
        (("run", "--out=file/a"), "cannot write to file/a: Not a directory"),
    ],
)
def test_mistakes_print_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        write(tmp_path / "run", curve(0.5))
    (tmp_path / "file").touch()
    code, output, errors = finish(*arguments)
    assert code == 1
    assert message in errors and errors.startswith("error: ")
    assert errors.count("\n") == 1 and output == ""


def test_help_shows_the_flags_of_this_program():
    code, output, _ = finish("--help")
    assert code == 0
    assert "WORKDIR" in output and "--out" in output and "Examples" in output
    assert "--norm\n" not in output and "absl.logging" not in output


def test_comparing_does_not_import_tensorflow(tmp_path):
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
