"""The page of results: what it says of numbers, and its whole path, tiny."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks import evidence
from benchmarks import evidence_findings as findings
from benchmarks import evidence_grids
from benchmarks import tree_patches
from benchmarks.evidence_grids import Grid
from recipes import jobs as jobs_lib
from recipes import sweep_table
from recipes.groups import Group
from recipes.runs import Run

DOCS = pathlib.Path(__file__).parent.parent / "docs"
TINY = {
    "dataset": "digits",
    "model": "resnet2_cifar",
    "image_size": 8,
    "virtual_replicas": 2,
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


def group(*accuracies):
    runs = [
        Run(pathlib.Path("x"), {}, [{"epoch": 1, "eval/accuracy": value}], {})
        for value in accuracies
    ]
    return Group("", {}, runs)


def test_a_difference_has_the_deviation_of_two_means():
    found = findings.difference(group(0.9, 0.94), group(0.8, 0.82))
    assert found.mean == pytest.approx(0.11)
    # Sample deviations 0.02828 and 0.01414, two seeds each.
    expected = np.sqrt(0.02828427**2 / 2 + 0.01414214**2 / 2)
    assert found.deviation == pytest.approx(expected)
    assert found.text() == "+11.00 ± 2.24"
    assert findings.difference(group(0.9), None) is None


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ((0.90, 0.92), "holds"),
        ((0.70, 0.72), "does not hold"),
        ((0.81, 0.83), "not decided"),
        ((0.99,), "not decided"),
        (None, "not run"),
    ],
)
def test_a_verdict_needs_twice_the_deviation(first, verdict):
    other = group(0.80, 0.82)
    found = first and findings.difference(group(*first), other)
    assert findings.Claim("", found, "").verdict == verdict


def test_what_differs_from_the_papers_stands_first():
    columns = [2, 32]
    values = {
        ("--norm=bn", 32): (0.90, 0.91),
        ("--norm=bn", 2): (0.80, 0.81),
        ("--norm=frn", 32): (0.85, 0.86),
        ("--norm=frn", 2): (0.855, 0.856),
    }
    cells = {key: group(*value) for key, value in values.items()}
    rows = ["--norm=bn", "--norm=frn"]
    table = sweep_table.Table("replica_batch_size", columns, rows, cells)
    claims = findings.claims({"batch": table})
    assert "better than BN where batches are large" in claims[0].says
    assert claims[0].verdict == "does not hold"
    assert claims[0].found.mean == pytest.approx(-0.05)
    less = next(c for c in claims if c.says == "FRN loses less than BN does")
    assert less.verdict == "holds"
    assert less.found.mean == pytest.approx(0.1 + 0.0005)
    assert claims[-1].verdict == "not run"
    lost = findings.losses_by_batch(table)
    assert [row for row, _ in lost] == ["--norm=frn", "--norm=bn"]
    assert lost[1][1].mean == pytest.approx(0.1)


def test_the_readme_says_what_was_measured():
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


def test_the_grids_can_be_run(tmp_path):
    for name, grid in evidence_grids.GRIDS.items():
        cells = evidence_grids.cells(grid, tmp_path / name, tmp_path)
        sizes = {
            round(cell.config.train_epochs * 60000)
            for cell in cells
            if cell.config.dataset == "fashion_mnist"
        }
        assert len(sizes) <= 1, name  # All see as many examples.


def test_patches_show_a_tree_or_none_and_share_no_pixel():
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


def test_the_whole_path_of_a_tiny_grid(tmp_path, monkeypatch):
    trees(tmp_path / "data")
    places = tmp_path / "runs", tmp_path / "data", tmp_path / "docs"
    assert evidence.run(TINY_GRIDS, *places, num_jobs=2) == []
    docs = tmp_path / "docs"
    raw = json.loads((docs / "results.json").read_text())
    accuracy = raw["batch"]["runs"][0]["accuracy"]
    assert 0 < accuracy < 1
    page = (docs / "results.md").read_text()
    assert (
        f"| `--norm=frn` | {raw['batch']['runs'][1]['accuracy']:.2%}"[:-1]
        in page
    )
    assert "| **not run** |" in page
    assert raw["trees_elsewhere"]["rbn"]["num"] == 1
    assert raw["calibrations"]["trees"][0]["before"] > 0
    for name in [*TINY_GRIDS, "scaling_curves", "centering_trees"]:
        with Image.open(docs / "results" / f"{name}.png") as figure:
            assert figure.size[0] >= 700 and figure.size[1] >= 120
    # Again nothing is trained, and the page is the same.
    with monkeypatch.context() as patch:
        patch.setattr(jobs_lib, "PROGRAM", "not started")
        assert evidence.run(TINY_GRIDS, *places, num_jobs=2) == []
    assert (docs / "results.md").read_text() == page
