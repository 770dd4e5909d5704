"""Tables of measured values equal their JSON files."""

import json
import math
import pathlib
import re
import shlex
import statistics

import pytest

from benchmarks import tables

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["README.md", "recipes/README.md"]
PAGES += [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/*.md"))]
RESULTS = json.loads((ROOT / "docs/results.json").read_text())
LONG = json.loads((ROOT / "docs/results/long_training.json").read_text())
NUMBER = re.compile(r"[+-]?\d[\d,.]*( ± [\d,.]+)?( ?%| ms| s)?( top-1)?")
SHOWN = {
    page: {
        found[2]: found[3]
        for found in tables.MARKED.finditer((ROOT / page).read_text())
    }
    for page in PAGES
}


def all_tables(page):
    """Each table as a list of rows of cells, its heading first."""
    text = tables.MARKED.sub("", (ROOT / page).read_text())
    text = re.sub(
        r"<!-- python benchmarks/scale.py -->.*?<!-- end -->",
        "",
        text,
        flags=re.DOTALL,
    )
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        lines = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        yield [lines[0], *lines[2:]]


def is_measured(table):
    cells = [cell for row in table[1:] for cell in row[1:]]
    numbers = [cell for cell in cells if NUMBER.fullmatch(cell)]
    return len(numbers) >= 2


def test_every_marked_table_has_a_renderer():
    expected = {(name, page) for name, (*_, page) in tables.TABLES.items()}
    shown = {(name, page) for page, found in SHOWN.items() for name in found}
    assert shown == expected


@pytest.mark.parametrize("name", tables.TABLES)
def test_marked_table_equals_measured_json(name):
    *_, page = tables.TABLES[name]
    assert SHOWN[page][name] == tables.render(name)


@pytest.mark.parametrize("page", PAGES)
def test_no_measured_table_is_written_by_hand(page):
    found = [table[0] for table in all_tables(page) if is_measured(table)]
    if page == "docs/results.md":
        # Those below.
        assert len(found) == 13
    else:
        assert found == []


def spread(values, digits, factor=1, sign=""):
    mean = f"{factor * statistics.fmean(values):{sign},.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {factor * statistics.stdev(values):,.{digits}f}"


def difference(first, second):
    """Difference of means with its standard deviation."""
    variances = [statistics.variance(v) / len(v) for v in (first, second)]
    mean = statistics.fmean(first) - statistics.fmean(second)
    return mean, math.sqrt(sum(variances))


def points(mean, deviation):
    return f"{100 * mean:+.2f} ± {100 * deviation:.2f}"


def runs_of(grid, label, **settings):
    """The runs that a row's label in flags and other settings name."""
    flags = dict(
        word.removeprefix("--").split("=", 1)
        for word in shlex.split(label.strip("`"))
    )
    kwargs = json.loads(flags.pop("norm_kwargs", "{}"))
    wanted = {"norm": "frn", "activation": None, **flags, **settings}
    found = [
        run
        for run in RESULTS[grid]["runs"]
        if all(run["settings"].get(k) == v for k, v in wanted.items())
        and run["settings"].get("norm_kwargs", {}) == kwargs
    ]
    assert found, (label, settings)
    return found


def values_of(grid, label, key="accuracy", **settings):
    return [run[key] for run in runs_of(grid, label, **settings)]


(
    CLAIMS,
    BATCH,
    LOST,
    COST,
    LONGER,
    CURVES,
    TREES,
    ELSEWHERE,
    CALIBRATION,
    PARTS,
    EPSILON,
    RATE,
    DETECTION,
) = all_tables("docs/results.md")


@pytest.mark.parametrize(
    ("grid", "table"), [("batch", BATCH), ("parts", PARTS), ("rate", RATE)]
)
def test_grid_table_equals_the_results(grid, table):
    (_, *columns), *rows = table
    for label, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            name, value = column.strip("`-").split("=")
            settings = {name: float(value)}
            values = values_of(grid, label, **settings)
            assert len(values) == (1 if grid == "rate" else 2)
            assert cell == spread(values, 2, 100), (label, column)


@pytest.mark.parametrize(
    ("grid", "table"),
    [("curves", CURVES), ("trees", TREES), ("epsilon", EPSILON)],
)
def test_table_of_runs_equals_the_results(grid, table):
    for label, seeds, accuracy, best, loss, training_loss in table[1:]:
        runs = runs_of(grid, label)
        assert seeds == str(len(runs))
        assert accuracy == spread([r["accuracy"] for r in runs], 2, 100)
        bests = [max(run["evaluations"].values()) for run in runs]
        assert best == spread(bests, 2, 100)
        assert loss == spread([run["loss"] for run in runs], 4)
        # Runs recorded before it was kept have it only in the page.
        if all("training_loss" in run for run in runs):
            losses = [run["training_loss"] for run in runs]
            assert training_loss == spread(losses, 4)


def batch(label, size, key="accuracy"):
    return values_of("batch", label, key, replica_batch_size=size)


def test_table_of_lost_accuracy():
    assert [label for label, _ in LOST[1:]] != [row[0] for row in BATCH[1:]]
    for label, cell in LOST[1:]:
        assert cell == points(*difference(batch(label, 32), batch(label, 2)))


def test_table_of_costs():
    for label, large, small, memory in COST[1:]:
        seconds = "seconds_per_step"
        assert large == spread(batch(label, 32, seconds), 1, 1e3)
        assert small == spread(batch(label, 2, seconds), 1, 1e3)
        peak = statistics.fmean(batch(label, 32, "peak_memory_bytes"))
        assert memory == f"{peak / 2**20:,.0f}"


def long_values(norm, size):
    return next(
        (
            row["accuracies"][-1]
            for row in LONG["rows"]
            if (row["norm"], row["batch_size"]) == (norm, size)
        ),
        None,
    )


def test_table_of_longer_training():
    assert LONGER[0][1:] == ["batch 2", "batch 8", "batch 64"]
    for label, *cells in LONGER[1:]:
        for size, cell in zip((2, 8, 64), cells, strict=True):
            values = long_values(label.strip("`"), size)
            assert cell == (spread(values, 2, 100) if values else "not run")


def test_table_of_the_second_photo():
    for label, seeds, cell in ELSEWHERE[1:]:
        found = RESULTS["trees_elsewhere"][label.strip("`").split("=")[1]]
        mean, deviation = 100 * found["mean"], 100 * found["deviation"]
        assert seeds == str(found["num"])
        assert cell == f"{mean:.2f} ± {deviation:.2f}"


def test_table_of_calibrations():
    keys = ("before", "after", "unequal_before", "unequal_after")
    for cells, row in zip(
        CALIBRATION[1:], RESULTS["calibrations"]["curves"], strict=True
    ):
        numbers = [f"{row[key]:.3f}" for key in (*keys, "center_weight")]
        assert cells == [f"`{row['layer']}`", *numbers]


def test_table_of_detectors():
    keys = ("training_AP50", "training_AP", "AP50", "AP")
    for cells, run in zip(
        DETECTION[1:], RESULTS["detection"]["runs"], strict=True
    ):
        numbers = [f"{100 * run[key]:.1f}" for key in keys]
        minutes = f"{run['seconds'] / 60:.1f}"
        parameters = f"{run['parameters']:,}"
        assert cells == [
            f"`--norm={run['settings']['norm']}`",
            *numbers,
            minutes,
            parameters,
        ]


FRN, RELU, BN = "--norm=frn", "--norm=frn --activation=relu", "--norm=bn"
FIXED = '--norm=frn --norm_kwargs=\'{"learned_epsilon_initializer": "zeros"}\''


def less(first, second):
    """The difference of two differences."""
    return first[0] - second[0], math.hypot(first[1], second[1])


def long_difference(one, other):
    return difference(long_values(*one), long_values(*other))


def compared():
    """Each comparison of the table of claims, from the raw values."""
    yield (
        "`frn` minus `bn`, 32 images per replica",
        difference(batch(FRN, 32), batch(BN, 32)),
    )
    yield (
        "`frn` minus `bn`, 2 images per replica",
        difference(batch(FRN, 2), batch(BN, 2)),
    )
    yield (
        "`rbn` minus `bn`, 2 images per replica",
        difference(batch("--norm=rbn", 2), batch(BN, 2)),
    )
    yield (
        "`frn` minus `gn`, 2 images per replica",
        difference(batch(FRN, 2), batch("--norm=gn", 2)),
    )
    yield (
        "`bn`, 32 minus 2 images per replica",
        difference(batch(BN, 32), batch(BN, 2)),
    )
    yield (
        "loss of `bn` minus loss of `frn`, from 32 to 2 images",
        less(
            difference(batch(BN, 32), batch(BN, 2)),
            difference(batch(FRN, 32), batch(FRN, 2)),
        ),
    )
    yield (
        "`frn` minus `frn --activation=relu`, 32 images per replica",
        difference(batch(FRN, 32), batch(RELU, 32)),
    )
    yield (
        "`frn` minus `frn` with an epsilon of 1e-6, narrow VGG-A",
        difference(values_of("epsilon", FRN), values_of("epsilon", FIXED)),
    )
    for grid, name in (("curves", "Fashion-MNIST"), ("trees", "tree patches")):
        yield (
            f"`rbn` minus `bn`, {name}",
            difference(values_of(grid, "--norm=rbn"), values_of(grid, BN)),
        )
    for norm in ("frn", "rbn"):
        for size in (2, 64):
            yield (
                f"`{norm}` minus `bn`, batch {size}, longer training",
                (long_difference((norm, size), ("bn", size))),
            )
    lost = {
        norm: long_difference((norm, 64), (norm, 2)) for norm in ("bn", "frn")
    }
    yield "`bn`, batch 64 minus batch 2, longer training", lost["bn"]
    yield (
        "loss of `bn` minus loss of `frn`, from 64 to 2, longer training",
        less(lost["bn"], lost["frn"]),
    )


def test_table_of_claims():
    expected = dict(compared())
    assert {row[1] for row in CLAIMS[1:]} == set(expected)
    for _, where, text, verdict in CLAIMS[1:]:
        mean, deviation = expected[where]
        assert text == points(mean, deviation), where
        if abs(mean) <= 2 * deviation:
            assert verdict == "**not decided**"
        else:
            holds = "holds" if mean > 0 else "does not hold"
            assert verdict == f"**{holds}**"


def test_first_screen_shows_measured_numbers():
    text = (ROOT / "README.md").read_text()
    gain = difference(
        values_of("curves", "--norm=rbn"), values_of("curves", BN)
    )
    lost = difference(batch(BN, 32), batch(BN, 2))
    assert f"costs BN {points(*lost)[1:]} points" in text
    assert "and FRN nothing" in text
    assert difference(batch(FRN, 32), batch(FRN, 2))[0] < 0
    assert f"RBN gains {points(*gain)[1:]} points" in text
    verdicts = [row[3] for row in CLAIMS[1:] if "RBN is better" in row[0]]
    undecided = verdicts.count("**not decided**")
    assert f"In {undecided} of {len(verdicts)} comparisons" in text
    content = json.loads((ROOT / "docs/measured/layers.json").read_text())
    ratios = {
        (row["ours"], row["theirs"], row["mode"]): row["ratio"]
        for row in content["report"]["comparisons"]
    }
    frn = ratios["FRN(activation=tlu)", "Keras BN, ReLU", "best"]
    rbn = ratios["RBN", "Keras BN", "best"]
    assert f"FRN with TLU takes {frn:.2f} of" in text
    assert f"RBN takes {rbn:.2f} of the time of Keras' BN" in text


def test_speed_page_shows_memory_measured_on_a_gpu():
    content = json.loads((ROOT / "docs/measured/backends.json").read_text())
    (row,) = [r for r in content["rows"] if r["setup"].startswith("JAX, H100")]
    frn, naive = row["temporary_tensors"].values()
    text = (ROOT / "docs/speed.md").read_text()
    assert f"needs {frn:.2f} tensors" in text
    assert f"the naive form {naive:.2f}" in text
