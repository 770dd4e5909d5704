"""Renders docs/results.md from docs/results.json."""

import json
import pathlib

import jinja2
import pandas as pd

from benchmarks import evidence_findings as findings
from recipes import atomic_io
from recipes.experiments import results
from recipes.experiments.programs import PROGRAMS
from recipes.experiments.results import format_mean

TEMPLATE = pathlib.Path(__file__).with_name("results.md.jinja")
# Written by benchmarks/long_training.py on a GPU.
LONG_TRAINING = (
    pathlib.Path(__file__).parent.parent / "docs/results/long_training.json"
)
# Metrics of the table of detectors, and their headings.
DETECTION = {
    "training_AP50": "training AP50, %",
    "training_AP": "training AP, %",
    "AP50": "held-out AP50, %",
    "AP": "held-out AP, %",
}


def write_page(docs, grids):
    """Writes results.md from the results.json beside it.

    Args:
        docs: Path of the folder.
        grids: Dict from a name to an `evidence_grids.Grid`.
    """
    content = json.loads((docs / "results.json").read_text())
    long = json.loads(LONG_TRAINING.read_text())
    atomic_io.write_text(docs / "results.md", render(content, grids, long))


def make_tables(content, grids):
    """Makes the `results.Table` of each grid.

    Args:
        content: Content of results.json.
        grids: Dict from a name to an `evidence_grids.Grid`.
    """
    return {
        name: results.make_table(content[name]["runs"], grid.x)
        for name, grid in grids.items()
    }


def render(content, grids, long):
    """Renders the page.

    Args:
        content: Content of results.json.
        grids: Dict from a name to an `evidence_grids.Grid`.
        long: Content of long_training.json.
    """
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701, Markdown
    )
    environment.filters["thousands"] = "{:,}".format
    tables = make_tables(content, grids)
    classifiers = [
        run
        for name, grid in grids.items()
        if grid.program == "imagenet"
        for run in content[name]["runs"]
    ]
    return environment.from_string(TEMPLATE.read_text()).render(
        claims=findings.make_claims(tables, long["rows"]),
        markdown={
            name: _format_grid(table)
            for name, table in tables.items()
            if name in ("batch", "parts", "rate")
        },
        results={
            name: _format_results(content[name], tables[name])
            for name in ("curves", "trees", "epsilon")
        },
        cost=_format_cost(tables["batch"]),
        losses=findings.compute_losses(tables["batch"]),
        first={name: content[name]["runs"][0] for name in grids},
        batch_sizes=tables["batch"].columns,
        rates=tables["rate"].columns,
        percent="{:.1%}".format,
        best_rates=_format_best_rates(tables["rate"]),
        steps=_count_steps(tables["batch"].frame),
        long=long["settings"],
        long_table=_format_long(long["rows"]),
        grids={name: grid.settings for name, grid in grids.items()},
        centered=_format_centered(tables["parts"]),
        elsewhere=content["trees_elsewhere"],
        calibrations=content["calibrations"],
        detection=_describe_detection(content, grids["detection"]),
        notes={"batch": "", "long": "", **content.get("notes", {})},
        num_runs=len(classifiers),
        minutes=round(sum(run["seconds"] for run in classifiers) / 60),
        versions=content["batch"]["versions"],
        machine=content["batch"]["machine"],
    )


def _format_grid(table):
    metric = PROGRAMS["imagenet"].score
    frame = results.pivot(table, metric)
    return results.format_markdown(frame, metric.heading)


def _format_results(content, table):
    """Formats final metrics of runs that have no setting along x."""
    rows = {}
    for row in table.rows:
        runs = table.frame[table.frame["row"] == row]
        best = [max(each.values()) for each in runs["evaluations"]]
        if "training_loss" in runs:
            losses = format_mean(runs["training_loss"], 4)
        else:
            # Recorded before results.json had it for each run.
            losses = content["training_loss"][row]
        rows[row] = {
            "seeds": str(len(runs)),
            "test top-1, %": format_mean(runs["accuracy"], 2, 100),
            "best, %": format_mean(best, 2, 100),
            "test loss": format_mean(runs["loss"], 4),
            "training loss": losses,
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return results.format_markdown(frame)


def _format_cost(table):
    """Formats step time and memory for the largest and smallest batch."""
    ends = findings.get_ends(table)
    rows = {}
    for row in table.rows:
        memory = table.get(row, ends[0], "peak_memory_bytes")
        rows[row] = {
            **{
                f"ms per step, {column} per replica": format_mean(
                    table.get(row, column, "seconds_per_step"), 1, 1e3
                )
                for column in ends
            },
            "peak memory, MiB": f"{memory.mean() / 2**20:,.0f}",
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return results.format_markdown(frame)


def _format_best_rates(table):
    """Formats the best rate of each row, such as `frn` at 0.8: 80.50%."""
    texts = []
    for row in table.rows:
        means = {c: table.get(row, c, "accuracy").mean() for c in table.columns}
        best = max(means, key=means.get)
        texts.append(f"`{row}` at {best}: {means[best]:.2%}")
    return ", ".join(texts)


def _count_steps(frame):
    """Counts the steps of the runs with the largest and smallest batch."""
    sizes = frame["column"].astype(float)
    steps = frame["examples_trained_on"] / sizes / frame["num_replicas"]
    ends = steps[sizes.idxmax()], steps[sizes.idxmin()]
    return [f"{round(end):,}" for end in ends]


def _format_long(rows):
    """Formats the accuracies of benchmarks/long_training.py."""
    frame = pd.DataFrame(rows)
    frame["text"] = [format_mean(r["accuracies"][-1], 2, 100) for r in rows]
    frame["norm"] = pd.Categorical(frame["norm"], frame["norm"].unique())
    table = frame.pivot(index="norm", columns="batch_size", values="text")
    table = table.rename(columns="batch {}".format).fillna("not run")
    return results.format_markdown(table)


def _format_centered(table):
    """Formats the accuracy of FRN with the mean subtracted, if it was run."""
    rows = [row for row in table.rows if "subtract_mean" in row]
    if not rows:
        return None
    return format_mean(
        table.get(rows[0], table.columns[-1], "accuracy"), 2, 100
    )


def _describe_detection(content, grid):
    """Returns the variables of the template about detectors."""
    runs = content["detection"]["runs"]
    rows = {
        f"--norm={run['settings']['norm']}": {
            **{
                name: f"{100 * run[key]:.1f}" for key, name in DETECTION.items()
            },
            "minutes": f"{run['seconds'] / 60:.1f}",
            "parameters": f"{run['parameters']:,}",
        }
        for run in runs
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    config_class = PROGRAMS[grid.program].config
    preset = config_class.PRESETS[grid.settings["preset"]]
    config = {**config_class().to_dict(), **preset, **grid.settings}
    ranked = {
        key: sorted(runs, key=lambda run, key=key: run[key])
        for key in DETECTION
    }
    return {
        "first": runs[0],
        "config": config,
        "steps": runs[0]["examples_trained_on"] // config["global_batch_size"],
        "table": results.format_markdown(frame),
        "num": len(runs),
        "minutes": round(sum(run["seconds"] for run in runs) / 60),
        "worst": {key: found[0] for key, found in ranked.items()},
        "best": {key: found[-1] for key, found in ranked.items()},
    }
