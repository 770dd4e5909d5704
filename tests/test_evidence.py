"""The page of results: findings, rendering, and a tiny run of all grids."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks import evidence
from benchmarks import evidence_findings as findings
from benchmarks import evidence_grids
from benchmarks import evidence_page
from benchmarks import tree_patches
from benchmarks.evidence_grids import Grid
from recipes.errors import RecipeError
from recipes.experiments.programs import PROGRAMS
from recipes.experiments.results import make_table
from recipes.run_dir import run_dir
from recipes.training import runner
from tests.recipes import small_runs
from tests.recipes.detection import boxes_folder
from tests.recipes.detection import small_detector

DOCS = pathlib.Path(__file__).parent.parent / "docs"
TINY = {
    "dataset": "digits",
    "model": "resnet2_cifar",
    "image_size": 8,
    "virtual_replicas": 1,
    "learning_rate": 0.4,
    "train_epochs": 0.2,
    "steps_per_execution": 5,
}
TINY_GRIDS = {
    "rate": Grid(TINY, ("--norm=frn", "--learning_rate=0.4"), 64),
    "batch": Grid(
        TINY,
        ("--norm=frn", "--replica_batch_size=16 | 8"),
        64,
        "replica_batch_size",
    ),
    "curves": Grid(TINY, ("--norm=rbn", "--seed=0"), 64),
    "trees": Grid(
        {**TINY, "dataset": "folder:{data}/trees", "train_epochs": 1},
        ("--norm=rbn", "--seed=0", "--replica_batch_size=2"),
        4,
    ),
    "parts": Grid(TINY, ("--norm=frn", "--warmup_epochs=0"), 64),
    "epsilon": Grid(TINY, ("--norm=frn",), 64),
}
# A folder with boxes replaces the photos, which would be downloaded.
TINY_DETECTOR = {
    "preset": "trees",
    "virtual_replicas": 1,
    "image_size": 64,
    "global_batch_size": 2,
    "eval_batch_size": 4,
    "train_steps": 2,
    "pyramid_filters": 8,
    "max_level": 5,
    "head_depth": 0,
}


def test_a_difference_has_the_deviation_of_two_means():
    found = findings.subtract([0.9, 0.94], [0.8, 0.82])
    assert found.mean == pytest.approx(0.11)
    # Sample deviations 0.02828 and 0.01414, two seeds each.
    expected = np.sqrt(0.02828427**2 / 2 + 0.01414214**2 / 2)
    assert found.deviation == pytest.approx(expected)
    assert found.format() == "+11.00 ± 2.24"
    assert findings.subtract([0.9], []) is None
    assert findings.subtract([0.9], [0.8, 0.9]).deviation is None


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ([0.90, 0.92], "holds"),
        ([0.70, 0.72], "does not hold"),
        ([0.81, 0.83], "not decided"),
        ([0.99], "not decided"),
        ([], "not run"),
    ],
)
def test_a_verdict_needs_twice_the_deviation(first, verdict):
    found = findings.subtract(first, [0.80, 0.82])
    assert findings.Claim("", found, "").verdict == verdict


def test_contradicted_claims_come_first():
    values = {
        ("bn", 32): (0.90, 0.91),
        ("bn", 2): (0.80, 0.81),
        ("frn", 32): (0.85, 0.86),
        ("frn", 2): (0.855, 0.856),
    }
    results = [
        {
            "settings": {"norm": norm, "replica_batch_size": size, "seed": i},
            "accuracy": value,
        }
        for (norm, size), pair in values.items()
        for i, value in enumerate(pair)
    ]
    table = make_table(results, "replica_batch_size")
    claims = findings.make_claims({"batch": table})
    assert claims[0].text == findings.FRN_LARGE
    assert claims[0].verdict == "does not hold"
    assert claims[0].found.mean == pytest.approx(-0.05)
    less = next(c for c in claims if c.text == findings.FRN_LOSES_LESS)
    assert less.verdict == "holds"
    assert less.found.mean == pytest.approx(0.1 + 0.0005)
    assert claims[-1].verdict == "not run"
    losses = findings.compute_losses(table)
    assert [row for row, _ in losses] == ["--norm=frn", "--norm=bn"]
    assert losses[1][1].mean == pytest.approx(0.1)


def test_the_page_is_rendered_from_its_json_file():
    content = json.loads((DOCS / "results.json").read_text())
    long = json.loads(evidence_page.LONG_TRAINING.read_text())
    page = evidence_page.render(content, evidence_grids.GRIDS, long)
    assert page == (DOCS / "results.md").read_text()


def test_readme_shows_measured_accuracies():
    runs = json.loads((DOCS / "results.json").read_text())["batch"]["runs"]
    text = (DOCS.parent / "README.md").read_text()
    (sentence,) = [line for line in text.splitlines() if "From 32 to 2" in line]
    expected = []
    for norm in ("frn", "bn"):
        for size in (32, 2):
            settings = {"norm": norm, "replica_batch_size": size}
            values = [
                run["accuracy"]
                for run in runs
                if {**run["settings"], "seed": 0} == {**settings, "seed": 0}
            ]
            assert len(values) == 2
            expected.append(f"{100 * np.mean(values):.1f}%")
    assert re.findall(r"[\d.]+%", sentence) == expected


def test_detection_page_shows_measured_scores():
    runs = json.loads((DOCS / "results.json").read_text())["detection"]["runs"]
    text = (DOCS / "detection.md").read_text()
    (sentence,) = [line for line in text.splitlines() if "trees: AP50" in line]
    expected = [
        f"`{run['settings']['norm']}` {run['training_AP50']:.1%} and "
        f"{run['AP50']:.1%}"
        for run in runs
    ]
    found = re.findall(r"`\w+` [\d.]+% and [\d.]+%", sentence)
    assert found == expected and len(found) == 4


def test_the_detectors_evaluate_both_splits(tmp_path):
    grid = evidence_grids.GRIDS["detection"]
    cells = evidence_grids.make_cells(grid, tmp_path, "some/data")
    norms = [cell.config.norm for cell in cells]
    assert norms == ["frn", "gn", "bn", "rbn"]
    for cell in cells:
        assert cell.config.preset == "trees"
        assert cell.config.data_dir == "some/data"
        assert cell.config.eval_train  # For the table.
        assert cell.command.startswith("python recipes/coco.py --preset=trees")


def test_runs_of_a_grid_see_the_same_number_of_examples(tmp_path):
    for name, grid in evidence_grids.GRIDS.items():
        cells = evidence_grids.make_cells(grid, tmp_path / name, tmp_path)
        sizes = {
            round(cell.config.train_epochs * 60000)
            for cell in cells
            if cell.config.dataset == "fashion_mnist"
        }
        assert len(sizes) <= 1, name


def test_patches_have_a_tree_or_none_and_do_not_overlap():
    photo = np.arange(160 * 96 * 3, dtype=np.uint32).reshape(160, 96, 3)
    found = tree_patches.cut(photo, [(0, 0, 32, 160)])
    assert len(found["tree"]) == 9
    assert len(found["no_tree"]) == 9 * 3
    upper, lower = tree_patches.split(found, 160)
    seen = [
        {
            value
            for patches in part.values()
            for _, p in patches
            for value in p.flat
        }
        for part in (upper, lower)
    ]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    chosen = tree_patches.balanced(upper)
    assert len(chosen["tree"]) == len(chosen["no_tree"]) > 0
    again = tree_patches.balanced(upper)
    for (_, one), (_, other) in zip(
        chosen["no_tree"], again["no_tree"], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def trees(folder):
    generator = np.random.default_rng(0)
    for part in ("trees/train", "trees/validation", "trees_elsewhere/train"):
        for label in ("tree", "no_tree"):
            place = folder / part / label
            place.mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "trees_elsewhere" / "validation").symlink_to(
        folder / "trees" / "validation"
    )


def train_here(grids, folder, data_dir):
    """Trains all networks but one in this process, equal ones once."""
    tasks = {"imagenet": small_runs.TASK, "coco": small_detector.TASK}
    cells = [
        evidence_grids.make_cells(grid, folder / name, data_dir)[0]
        for name, grid in grids.items()
    ]
    trained = {}
    for cell in cells:
        settings = json.dumps({**cell.config.to_dict(), "workdir": ""})
        if settings in trained:
            shutil.copytree(trained[settings], cell.config.folder)
            run_dir.write_config(cell.config)
        else:
            runner.run(cell.config, tasks[cell.program.name])
            trained[settings] = cell.config.folder


def test_tiny_grids_are_trained_and_shown_on_the_page(tmp_path, monkeypatch):
    trees(tmp_path / "data")
    boxes = boxes_folder.write(tmp_path / "boxes")
    settings = {**TINY_DETECTOR, "dataset": f"folder:{boxes}"}
    detection = Grid(settings, ("--norm=frn",), None, program="coco")
    grids = {**TINY_GRIDS, "detection": detection}
    folders = [
        f"--{name}={tmp_path / path}"
        for name, path in (
            ("folder", "runs"),
            ("data_dir", "data"),
            ("docs", "docs"),
        )
    ]
    train_here(grids, tmp_path / "runs", tmp_path / "data")
    options = evidence.parse([*folders, "--jobs=2"], list(grids))
    assert evidence.run(grids, options) == []
    docs = tmp_path / "docs"
    raw = json.loads((docs / "results.json").read_text())
    accuracy = raw["batch"]["runs"][0]["accuracy"]
    assert 0 < accuracy < 1
    page = (docs / "results.md").read_text()
    accuracy = raw["batch"]["runs"][1]["accuracy"]
    assert f"| `--norm=frn` | {accuracy:.2%}"[:-1] in page
    assert "| **not run** |" in page
    assert raw["trees_elsewhere"]["rbn"]["num"] == 1
    assert raw["calibrations"]["trees"][0]["before"] > 0
    (detector,) = raw["detection"]["runs"]
    assert detector["examples_trained_on"] == 4 and detector["AP50"] < 1
    assert detector["command"] in page
    assert "{:,}".format(detector["parameters"]) in page
    with Image.open(docs / "results" / "detection.jpg") as figure:
        assert figure.size[0] == 1000  # Two images have boxes, in each split.
    for name in [*TINY_GRIDS, "scaling_curves", "centering_trees"]:
        with Image.open(docs / "results" / f"{name}.png") as figure:
            assert figure.size[0] >= 700 and figure.size[1] >= 120

    # A second call trains nothing and writes the same page.
    for name, program in PROGRAMS.items():
        stopped = dataclasses.replace(program, script="not started")
        monkeypatch.setitem(PROGRAMS, name, stopped)
    assert evidence.run(grids, options) == []
    assert (docs / "results.md").read_text() == page
    # Detectors with other settings are not mistaken for these.
    other = dataclasses.replace(
        detection, settings={**settings, "learning_rate": 0.1}
    )
    only = evidence.parse([*folders, "--only", "detection"], list(grids))
    with pytest.raises(RecipeError, match="run of another config: learning"):
        evidence.run({"detection": other}, only)
