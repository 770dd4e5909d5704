"""The page of results: what it says of numbers, and its whole path, tiny."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks import evidence
from benchmarks import evidence_detection
from benchmarks import evidence_findings as findings
from benchmarks import evidence_grids
from benchmarks import evidence_page
from benchmarks import tree_patches
from benchmarks.evidence_detection import Detectors
from benchmarks.evidence_grids import Grid
from recipes.errors import RecipeError
from recipes.experiments import results_table
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments.aggregate import Group
from recipes.run_dir.runs import Run
from tests.recipes.detection import boxes_folder

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
# Its photos would have to be downloaded; boxes of a folder do as well here.
TINY_DETECTOR = {
    "preset": "trees",
    "image_size": 64,
    "global_batch_size": 2,
    "eval_batch_size": 4,
    "train_steps": 2,
    "pyramid_filters": 8,
    "head_depth": 1,
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
    table = results_table.Table("replica_batch_size", columns, rows, cells)
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
        f"`{run['norm']}` {run['training_AP50']:.1%} and {run['AP50']:.1%}"
        for run in runs
    ]
    found = re.findall(r"`\w+` [\d.]+% and [\d.]+%", sentence)
    assert found == expected and len(found) == 4


def test_the_detectors_can_be_run(tmp_path):
    runs = evidence_detection.plan(
        evidence_detection.DETECTORS, tmp_path, "some/data"
    )
    assert [run.norm for run in runs] == ["frn", "gn", "bn", "rbn"]
    for run in runs:
        assert (run.config.norm, run.config.preset) == (run.norm, "trees")
        assert run.config.data_dir == "some/data"
        assert run.config.eval_train  # The table shows it.
        assert run.folder == tmp_path / run.norm
        assert f"--workdir={tmp_path / run.norm}" in run.arguments


def write_ended(folder, step=600, last_row=600, **values):
    folder.mkdir(parents=True)
    last = {f"eval/{name}": value for name, value in values.items()}
    facts = {"num_replicas": 2, "num_train": 323, "num_eval": 90}
    summary = {"last": {"step": step, **last}, "seconds": 150, **facts}
    summary["parameters"] = 960973
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [{"step": 300, "epoch": 1}, {"step": last_row, "epoch": 2}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)


def test_what_detectors_came_to(tmp_path):
    detectors = Detectors(("frn", "rbn"), {"preset": "trees"})
    runs = evidence_detection.plan(detectors, tmp_path, "data")
    assert runs[0].summary() is None
    values = {"training_AP50": 0.7, "training_AP": 0.31}
    write_ended(tmp_path / "frn", **values, AP50=0.0561, AP=0.021)
    values = {"training_AP50": 0.625, "training_AP": 0.4}
    write_ended(tmp_path / "rbn", **values, AP50=0.08, AP=0.03)
    heads, *rows = evidence_detection.markdown(runs).splitlines()
    names = "training AP50, %|training AP, %|held-out AP50, %|held-out AP, %"
    names = ["", *names.split("|"), "minutes", "parameters"]
    assert heads == f"| {' | '.join(names)} |"
    assert rows == [
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| `--norm=frn` | 70.0 | 31.0 | 5.6 | 2.1 | 2.5 | 960,973 |",
        "| `--norm=rbn` | 62.5 | 40.0 | 8.0 | 3.0 | 2.5 | 960,973 |",
    ]
    said = evidence_page.of_detection(runs)
    assert said["minutes"] == 5 and said["num"] == 2
    low, high = said["ends"]["training_AP50"]
    assert (low["norm"], high["norm"]) == ("rbn", "frn")
    low, high = said["ends"]["AP50"]
    assert (low["norm"], high["norm"]) == ("frn", "rbn")
    assert low["command"].startswith("python recipes/coco.py --preset=trees")
    # It lost its newest save and is to be trained again from the one before.
    write_ended(tmp_path / "again" / "frn", last_row=500, AP=0.5)
    (again, _) = evidence_detection.plan(detectors, tmp_path / "again", "data")
    assert again.summary() is None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('error: no photos'); print('bye'); exit(1)", "1: no photos"),
        ("print('nothing to do')", "0: nothing to do"),
    ],
)
def test_a_detector_that_fails_names_its_log(
    tmp_path, monkeypatch, program, reason
):
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(evidence_detection, "PROGRAM", tmp_path / "program.py")
    detectors = Detectors(("gn",), {"preset": "trees"})
    log = tmp_path / "runs" / "gn" / "output.log"
    with pytest.raises(
        RecipeError, match=rf"with gn .* exit code {reason} \({log}\)$"
    ):
        evidence_detection.train(detectors, tmp_path / "runs", "data")


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
    boxes = boxes_folder.write(tmp_path / "boxes")
    settings = {**TINY_DETECTOR, "dataset": f"folder:{boxes}"}
    detectors = Detectors(("frn",), settings)
    assert evidence.run(TINY_GRIDS, detectors, *places, num_jobs=2) == []
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
    (detector,) = raw["detection"]["runs"]
    assert detector["steps"] == 2 and detector["AP50"] < 1
    assert detector["command"] in page
    assert "{:,}".format(detector["parameters"]) in page
    with Image.open(docs / "results" / "detection.jpg") as figure:
        assert figure.size[0] == 1000  # Two images have boxes, in each split.
    for name in [*TINY_GRIDS, "scaling_curves", "centering_trees"]:
        with Image.open(docs / "results" / f"{name}.png") as figure:
            assert figure.size[0] >= 700 and figure.size[1] >= 120
    # Again nothing is trained, and the page is the same.
    with monkeypatch.context() as patch:
        patch.setattr(jobs_lib, "PROGRAM", "not started")
        patch.setattr(evidence_detection, "PROGRAM", "not started")
        assert evidence.run(TINY_GRIDS, detectors, *places, num_jobs=2) == []
    assert (docs / "results.md").read_text() == page
    # Nor are detectors of other settings taken for these.
    others = Detectors(("frn",), {**settings, "learning_rate": 0.1})
    with pytest.raises(RecipeError, match="run of another config: learning"):
        evidence_detection.train(others, places[0] / "detection", places[1])
