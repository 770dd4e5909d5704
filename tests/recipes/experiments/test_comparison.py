"""Comparison of runs: curves, notes, the page and the program."""

import base64
import html
import io
import re
import subprocess
import sys

import numpy as np
import pytest

from recipes import compare
from recipes.errors import RecipeError
from recipes.experiments import comparison
from recipes.experiments import plots
from recipes.experiments import results
from recipes.experiments.programs import PROGRAMS
from tests.recipes.command_line import ROOT
from tests.recipes.experiments.fake_runs import ENDED
from tests.recipes.experiments.fake_runs import curve
from tests.recipes.experiments.fake_runs import load
from tests.recipes.experiments.fake_runs import write

COMPARE = str(ROOT / "recipes" / "compare.py")
# The program, which fails if it has imported TensorFlow.
CHECKED = f"""
import runpy, sys
sys.argv[0], sys.path[0] = {COMPARE!r}, {str(ROOT)!r}
try:
    runpy.run_path({COMPARE!r}, run_name="__main__")
finally:
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
IMAGENET = PROGRAMS["imagenet"]


def finish(*arguments):
    """Runs the program and returns exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECKED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def get_notes(*runs):
    groups = results.group_runs(list(runs))
    return " ".join(comparison.find_notes(groups))


def draw(*runs, program=IMAGENET):
    return plots.draw_curves(results.group_runs(list(runs)), program)


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
        load(tmp_path / "a", curve(0.5, 0.75, 1.0, 1.0), ENDED, seed=1),
        load(tmp_path / "b", curve(0.25, None, 0.5), seed=2),
    )
    figure.savefig(io.BytesIO(), format="svg")
    _, errors = figure.axes
    assert errors.get_xlabel() == "epoch"
    assert errors.get_ylabel() == "test error, %"
    (mean,) = [line.get_xydata().tolist() for line in errors.lines]
    # The second run is interpolated in epoch 2; it has no epoch 4.
    assert mean == [[1.0, 62.5], [2.0, 43.75], [3.0, 25.0]]
    band = errors.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.0, 75.0)


def test_curves_of_detectors_show_average_precision(tmp_path):
    run = load(tmp_path / "a", curve(0.25, key="eval/AP"), program="coco")
    axes = draw(run, program=PROGRAMS["coco"]).axes[1]
    assert axes.get_ylabel() == "test AP, %"
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 25.0]]


def test_wide_ranges_have_a_logarithmic_scale(tmp_path):
    def get_scale(name, *accuracies):
        figure = draw(load(tmp_path / name, curve(*accuracies), ENDED))
        return figure.axes[1].get_yscale()

    assert get_scale("a", 0.1, 0.9) == "linear"
    assert get_scale("b", 0.1, 0.99) == get_scale("c", 0.1, 0.99, 1.0) == "log"


def test_many_groups_are_distinguishable(tmp_path):
    name = "long " * 30
    figure = draw(
        *(
            load(tmp_path / f"{i}", curve(0.5), ENDED, dataset=f"$x_{i}^{name}")
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
    assert figure.axes[0].get_window_extent().height > 200


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


# The page and the program


def test_the_page_is_a_single_file(tmp_path):
    runs = [
        load(tmp_path / "a", curve(0.5, 0.6), ENDED, norm="bn", seed=1),
        load(tmp_path / "b", curve(0.7, 0.8), ENDED, norm="bn", seed=2),
        load(tmp_path / "c", curve(0.1), norm="<i>gn</i>", data_dir="a" * 99),
    ]
    folder = tmp_path / "deep" / "out"
    _, notes = comparison.write_comparison(runs, folder, ["a & b"])
    picture = (folder / "compare.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    text = (folder / "compare.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import", text)
    assert base64.b64encode(picture).decode() in text
    assert "<i>" not in text and "&lt;i&gt;gn" in text
    assert "70.00 ± 14.14" in text and "a" * 99 in text
    assert len(notes) == 3 and all(html.escape(note) in text for note in notes)
    differing, shared = text.split("<h2>Runs")[1].split("<h2>Shared settings")
    assert "<th>seed</th>" in differing and "<th>norm</th>" in differing
    assert "<th>optimizer</th>" in shared and "optimizer" not in differing
    assert "<th>norm</th>" not in shared


def test_the_program_prints_a_table_without_importing_tensorflow(tmp_path):
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


def test_runs_of_different_programs_are_refused(tmp_path):
    runs = [load(tmp_path / name, program=name) for name in PROGRAMS]
    with pytest.raises(RecipeError, match="different programs") as caught:
        comparison.write_comparison(runs, tmp_path / "out")
    assert all(str(run.folder) in str(caught.value) for run in runs)


@pytest.mark.parametrize(
    ("paths", "out", "message"),
    [
        (("absent",), "out", "the folder absent does not exist"),
        ((".",), "out", "holds no run"),
        (("run",), "file", "cannot write to file: File exists"),
        (("run",), "file/a", "cannot write to file/a: Not a directory"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, paths, out, message):
    monkeypatch.chdir(tmp_path)
    if "run" in paths:
        write(tmp_path / "run", curve(0.5))
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=message) as caught:
        compare.run(paths, out)
    assert "\n" not in str(caught.value)


def test_the_program_without_runs_prints_one_line():
    code, output, errors = finish()
    assert (code, output) == (1, "")
    assert errors.startswith("error: no runs given. Usage: python recipes/com")
    assert errors.count("\n") == 1


def test_help_shows_the_flags_of_this_program():
    code, output, _ = finish("--help")
    assert code == 0
    assert "WORKDIR" in output and "--out" in output and "Examples" in output
    assert "--norm\n" not in output and "absl.logging" not in output
