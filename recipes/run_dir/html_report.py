"""A run as one HTML page that needs no other file."""

import dataclasses
import io
import pathlib
import statistics

import jinja2
from matplotlib.figure import Figure

from recipes import atomic_io
from recipes.run_dir import environment

TEMPLATE = pathlib.Path(__file__).with_name("report.html.jinja")
# One hue a split, the same in every figure.
COLORS = {"train": "#3b6fb6", "eval": "#c4572e"}
# What is of a single batch.
NOISY = ("train/loss", "train/accuracy", "train/top5_accuracy")
# From more values on, they are not marked.
MANY = 40
# A noisy curve is shown with its mean over that share of the run.
SMOOTHING = 1 / 25


def describe(task, result):
    """The outcome in two lines, for the terminal."""
    last, best = result.summary["last"], result.summary["best"]
    line = f"step {last.get('step', 0)}"
    if "train/loss" in last:
        line += f": training loss {last['train/loss']:.4f}"
    outcome = task.describe_result(last, best, result.summary)
    return "\n".join([line, outcome] if outcome else [line])


def write(config, task, data, result, schedule):
    """Writes report.html to the workdir and returns its path.

    Args:
        config: The config of the run.
        task: Its `Task`.
        data: Its `Data`.
        result: Its `Result`.
        schedule: Description of its learning-rate schedule.
    """
    template = jinja2.Template(
        TEMPLATE.read_text(), autoescape=True, trim_blocks=True
    )
    page = template.render(
        settings=settings(config),
        defaults=defaults(config),
        title=f"{' with '.join(config.network)} on {config.dataset}",
        summary=result.summary,
        tiles=_tiles(task, result.summary),
        figures=_figures(task, result.records),
        rule=schedule,
        pictures=task.report_pictures(config, data),
        versions=environment.versions(),
        command=environment.command(),
    )
    path = config.folder / "report.html"
    atomic_io.write_text(path, page)
    return path


def _tiles(task, summary):
    """The figures that a reader looks for first, as name and text."""
    last = summary["last"]
    tiles = list(task.report_tiles(last, summary["best"]))
    if "seconds" in summary:
        minutes, seconds = divmod(round(summary["seconds"]), 60)
        tiles.append(("training time", f"{minutes} min {seconds:02d} s"))
    if "train/images_per_second" in last:
        rate = f"{last['train/images_per_second']:,.0f}"
        tiles.append(("images a second", rate))
    tiles += [
        ("replicas", f"{summary['num_replicas']}"),
        ("parameters", f"{summary['parameters']:,}"),
    ]
    return tiles


def settings(config):
    """The settings that are not the defaults: name, value, who set it."""
    changes = config.PRESETS.get(config.preset, {})
    return [
        (
            field.name,
            value,
            f"preset {config.preset}"
            if field.name in changes and changes[field.name] == value
            else "",
        )
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) is not None
        and value != _default(field)
    ]


def defaults(config):
    """The other settings, by name."""
    changed = {name for name, *_ in settings(config)}
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in changed
    }


def _default(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _figures(task, records):
    """Each panel as its heading and its curves, which are SVG text."""
    return [(panel[0], _figure(panel, records)) for panel in task.panels]


def _figure(panel, records):
    """The curves of a panel as SVG text."""
    label, factor, keys = panel
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for split, key in keys.items():
        steps, values = records.series(key)
        values = [value * factor for value in values]
        if steps:
            _draw(axes, split, steps, values, key in NOISY)
    # No value is below 0, around which nothing but zeros would be shown.
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _draw(axes, split, steps, values, is_noisy):
    color = COLORS[split]
    width = max(round(len(values) * SMOOTHING), 1) if is_noisy else 1
    if width == 1:
        # Evaluations are few.
        marker = "." if len(values) <= MANY else None
        axes.plot(steps, values, color=color, label=split, marker=marker)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    means = [
        statistics.fmean(values[max(end - width, 0) : end])
        for end in range(1, len(values) + 1)
    ]
    axes.plot(steps, means, color=color, label=f"{split}, mean of {width}")
