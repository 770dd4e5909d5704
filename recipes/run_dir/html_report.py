"""The self-contained HTML report of a run."""

import dataclasses
import io
import pathlib
import statistics

import jinja2
from matplotlib.figure import Figure

from recipes import atomic_io
from recipes.run_dir import environment

TEMPLATE = pathlib.Path(__file__).with_name("report.html.jinja")
# Colors of the splits in all figures.
COLORS = {"train": "#3b6fb6", "eval": "#c4572e"}
# Metrics of a single batch.
NOISY = ("train/loss", "train/accuracy", "train/top5_accuracy")
# Curves with more points have no markers.
MAX_MARKERS = 40
# Noisy curves are averaged over this fraction of the run.
SMOOTHING = 1 / 25


def describe_result(task, result):
    """Returns the result in two lines, for the terminal."""
    last, best = result.summary["last"], result.summary["best"]
    line = f"step {last.get('step', 0)}"
    if "train/loss" in last:
        line += f": training loss {last['train/loss']:.4f}"
    evaluation = task.describe_result(last, best, result.summary)
    return "\n".join([line, evaluation] if evaluation else [line])


def write_report(config, task, data, result, schedule):
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
        settings=changed_settings(config),
        defaults=default_settings(config),
        title=f"{' with '.join(config.network)} on {config.dataset}",
        summary=result.summary,
        tiles=_tiles(task, result.summary),
        figures=_figures(task, result.metrics_log),
        rule=schedule,
        pictures=task.report_pictures(config, data),
        versions=environment.versions(),
        command=environment.command(),
    )
    path = config.folder / "report.html"
    atomic_io.write_text(path, page)
    return path


def _tiles(task, summary):
    """Returns the most important figures as (name, text) pairs."""
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


def changed_settings(config):
    """Returns `(name, value, source)` of the settings that are not defaults."""
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
        and value != _default_value(field)
    ]


def default_settings(config):
    """Returns a dict of the settings that have their default values."""
    changed = {name for name, *_ in changed_settings(config)}
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in changed
    }


def _default_value(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _figures(task, metrics_log):
    """Returns the panels as (heading, SVG text) pairs."""
    return [(panel[0], _figure(panel, metrics_log)) for panel in task.panels]


def _figure(panel, metrics_log):
    """Returns the curves of a panel as SVG text."""
    label, factor, keys = panel
    figure = Figure(figsize=(5, 3.2))
    figure.subplots_adjust(left=0.18, right=0.98, bottom=0.15, top=0.92)
    axes = figure.subplots()
    for split, key in keys.items():
        steps, values = metrics_log.series(key)
        values = [value * factor for value in values]
        if steps:
            _draw(axes, split, steps, values, key in NOISY)
    # No value is negative, but a curve of zeros would be drawn around 0.
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
        marker = "." if len(values) <= MAX_MARKERS else None
        axes.plot(steps, values, color=color, label=split, marker=marker)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    means = [
        statistics.fmean(values[max(end - width, 0) : end])
        for end in range(1, len(values) + 1)
    ]
    axes.plot(steps, means, color=color, label=f"{split}, mean of {width}")
