"""docs/results.md: the page, its figures, the raw results beside it."""

import json
import pathlib

import jinja2

from benchmarks import evidence_detection
from benchmarks import evidence_drawn
from benchmarks import evidence_findings as findings
from recipes import atomic_io
from recipes.experiments import aggregate as groups_lib
from recipes.experiments import compare_report
from recipes.experiments import plots
from recipes.experiments import results_table
from recipes.experiments import sweep_figure
from recipes.experiments import sweep_report

TEMPLATE = pathlib.Path(__file__).with_name("results.md.jinja")
COMMAND = "make evidence"
# Of benchmarks/long_training.py, on a GPU.
LONG_TRAINING = (
    pathlib.Path(__file__).parent.parent / "docs/results/long_training.json"
)
DPI = 110
# Grids that are shown over the epochs; the others by what is along x.
OVER_EPOCHS = ("curves", "trees")


def write(docs, grids, jobs, elsewhere, calibrations, detection):
    """Writes the page.

    Args:
        docs: Folder that it goes to.
        grids: Dict from a name to an `evidence_grids.Grid`.
        jobs: Dict from a name to the list of its `jobs.Job`, all done.
        elsewhere: List of `(norm, groups.Spread)` of the accuracy on the second
            photo.
        calibrations: Dict from a name to an `evidence_calibration.Calibration`.
        detection: List of `evidence_detection.Run`, all ended.
    """
    figures = docs / "results"
    figures.mkdir(parents=True, exist_ok=True)
    tables = {
        name: sweep_report.make_table(jobs[name], grids[name].x)
        for name in grids
    }
    for name, table in tables.items():
        if name in OVER_EPOCHS:
            figure = plots.draw(sweep_report.groups(table))
        else:
            figure = sweep_figure.draw(table)
        _save(figure, figures / f"{name}.png")
    for name, calibration in calibrations.items():
        _save(calibration.scaling, figures / f"scaling_{name}.png")
        _save(calibration.centering, figures / f"centering_{name}.png")
    evidence_drawn.save(detection[0].config, figures / "detection.jpg")
    raw = {
        name: sweep_report.collect(some, COMMAND) for name, some in jobs.items()
    }
    raw["trees_elsewhere"] = {norm: vars(spread) for norm, spread in elsewhere}
    raw["calibrations"] = {name: c.rows for name, c in calibrations.items()}
    raw["detection"] = evidence_detection.collect(detection, COMMAND)
    atomic_io.write_text(
        docs / "results.json", json.dumps(raw, indent=1) + "\n"
    )
    page = _page(grids, jobs, tables, elsewhere, calibrations, detection)
    atomic_io.write_text(docs / "results.md", page)


def _page(grids, jobs, tables, elsewhere, calibrations, detection):
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701, Markdown
    )
    environment.filters["thousands"] = "{:,}".format
    batch = grids["batch"].settings
    large, small = _ends(jobs["batch"])
    long = json.loads(LONG_TRAINING.read_text())
    all_runs = [job.ended_run() for some in jobs.values() for job in some]
    seconds = sum(run.summary["seconds"] for run in all_runs)
    return environment.from_string(TEMPLATE.read_text()).render(
        claims=findings.claims(tables, long["rows"]),
        markdown={n: results_table.markdown(t) for n, t in tables.items()},
        outcomes={
            name: _outcomes(tables[name]) for name in (*OVER_EPOCHS, "epsilon")
        },
        cost=_cost(tables["batch"]),
        lost=findings.losses_by_batch(tables["batch"]),
        first={name: some[0].cell.command for name, some in jobs.items()},
        data={name: _first_summary(some) for name, some in jobs.items()},
        parameters=_first_summary(jobs["batch"])["parameters"],
        batches=tables["batch"].columns,
        rates=tables["rate"].columns,
        percent="{:.1%}".format,
        best_text=_best_rates(tables["rate"]),
        learning_rate=batch["learning_rate"],
        steps=[f"{run.rows[-1]['step']:,}" for run in (large, small)],
        examples=large.rows[-1]["step"] * large.config["global_batch_size"],
        long=long["settings"],
        long_table=_long_table(long["rows"]),
        epochs={name: g.settings["train_epochs"] for name, g in grids.items()},
        centered=_centered(tables["parts"]),
        elsewhere=elsewhere,
        calibrations={name: c.rows for name, c in calibrations.items()},
        detection=of_detection(detection),
        num_runs=len(all_runs),
        minutes=round(seconds / 60),
        versions=sweep_report.versions(),
        machine=sweep_report.machine(),
    )


def of_detection(runs):
    """What the page says of detectors."""
    results = evidence_detection.collect(runs, COMMAND)["runs"]
    by_name = {
        name: sorted(results, key=lambda result, name=name: result[name])
        for name in evidence_detection.VALUES.values()
    }
    return {
        "first": results[0],
        "config": runs[0].config,
        "table": evidence_detection.markdown(runs),
        "num": len(runs),
        "minutes": round(sum(each["seconds"] for each in results) / 60),
        # The run of the lowest and of the highest value.
        "ends": {n: (found[0], found[-1]) for n, found in by_name.items()},
    }


def _first_summary(jobs):
    return jobs[0].ended_run().summary


def _centered(table):
    """The spread of FRN with the mean subtracted, if it was run."""
    rows = [row for row in table.rows if "subtract_mean" in row]
    return table.spread(rows[0], table.columns[-1]) if rows else None


def _ends(jobs):
    """The runs of the largest and of the smallest batch."""
    runs = sorted(
        (job.ended_run() for job in jobs),
        key=lambda run: run.config["global_batch_size"],
    )
    return runs[-1], runs[0]


def _best_rates(table):
    """Such as `frn at 0.8: 80.50`, of each row."""
    texts = []
    for row in table.rows:
        spreads = {c: table.spread(row, c) for c in table.columns}
        best = max(spreads, key=lambda column: spreads[column].mean)
        texts.append(f"`{row}` at {best}: {spreads[best].text(2, 100)}%")
    return ", ".join(texts)


def _long_table(rows):
    """Markdown of what benchmarks/long_training.py wrote."""
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    sizes = sorted({row["batch_size"] for row in rows})
    accuracies = {
        (row["norm"], row["batch_size"]): row["accuracies"][-1] for row in rows
    }
    table = {
        norm: [
            groups_lib.spread(accuracies[norm, size]).text(2, 100)
            if (norm, size) in accuracies
            else "not run"
            for size in sizes
        ]
        for norm in norms
    }
    heads = ["", *(f"batch {size}" for size in sizes)]
    return results_table.grid_of(heads, table)


def _outcomes(table):
    """Final values of groups that differ in their settings alone."""
    rows = {
        group.label: [
            str(len(group.runs)),
            group.spread("eval/accuracy").text(2, 100),
            group.spread(lambda run: run.best("eval/accuracy")).text(2, 100),
            group.spread("eval/loss").text(4),
            group.spread(compare_report.last_losses).text(4),
        ]
        for group in sweep_report.groups(table)
    }
    heads = ["", "seeds", "test top-1, %", "best, %", "test loss"]
    return results_table.grid_of([*heads, "training loss"], rows)


def _cost(table):
    """Step time and memory of each row at the largest and smallest x."""
    ends = table.columns[-1], table.columns[0]
    rows = {}
    for row in table.rows:
        steps = [
            table.spread(row, column, lambda run: run.seconds_per_step)
            for column in ends
        ]
        memory = table.spread(
            row, ends[0], lambda run: run.summary["peak_memory_bytes"]
        )
        rows[row] = [
            *(step.text(1, 1e3) for step in steps),
            f"{memory.mean / 2**20:,.0f}",
        ]
    heads = [f"ms a step, {column} a replica" for column in ends]
    return results_table.grid_of(["", *heads, "peak memory, MiB"], rows)


def _save(figure, path):
    with atomic_io.atomic_file(path) as place:
        figure.savefig(place, dpi=DPI, metadata={"Software": None})
