"""Groups runs that differ in the seed alone, and averages their metrics."""

import math
import statistics

import pandas as pd

from recipes.config.setting import fields_that_affect_result
from recipes.errors import RecipeError
from recipes.experiments.grid import format_flag
from recipes.experiments.programs import PROGRAMS

# Values of unused settings, which labels leave out.
_UNUSED = (None, {}, False, 0, "auto")


def get_program(runs):
    """Returns the `Program` of all runs.

    Raises:
        RecipeError: if they belong to different programs.
    """
    programs = {program.config: program for program in PROGRAMS.values()}
    folders = {programs[run.config_class]: run.folder for run in runs}
    if len(folders) > 1:
        examples = [f"{p.name}.py ({path})" for p, path in folders.items()]
        raise RecipeError(
            "runs of different programs have no metric in common: "
            f"{', '.join(examples)}. Compare them separately."
        )
    return next(iter(folders))


def group_runs(runs):
    """Groups runs whose settings differ in nothing that affects the metrics.

    Args:
        runs: List of `Run` of one program.

    Returns:
        Dict from a label, the flags that differ, to a list of `Run`.
    """
    names = set(fields_that_affect_result(runs[0].config_class)) - {"seed"}
    names = [name for name in runs[0].config if name in names]
    labels = label_settings(runs, names)
    if len(set(labels)) == 1:
        labels = label_settings(runs, ["preset"])
    groups = {}
    for run, label in zip(runs, labels, strict=True):
        groups.setdefault(label or _label_network(run.config), []).append(run)
    return groups


def label_settings(runs, names):
    """Labels each run by the flags that differ; unused ones are left out."""
    settings = [{name: run.config.get(name) for name in names} for run in runs]
    flags = pd.DataFrame(
        [{n: format_flag(n, v) for n, v in each.items()} for each in settings]
    )
    flags = flags.loc[:, flags.nunique() > 1]
    used = flags.apply(lambda c: [s[c.name] not in _UNUSED for s in settings])
    labels = join_flags(flags.where(used))
    # Labels that are empty or not unique show the unused settings as well.
    whole = join_flags(flags)
    groups = pd.DataFrame({"label": labels, "whole": whole})
    is_unique = groups.groupby("label")["whole"].transform("nunique") == 1
    return list(labels.where(is_unique & (labels != ""), whole))


def join_flags(flags):
    """Joins the texts of each row of a data frame; None and NaN are empty."""
    if flags.empty:
        return pd.Series("", index=flags.index)
    return flags.apply(lambda row: " ".join(row.dropna()), axis=1)


def measure(run, program):
    """Computes the metrics of a run: a dict with None for missing ones."""
    key = f"eval/{program.score.key}"
    return {
        **{m.key: run.final(f"eval/{m.key}") for m in program.metrics},
        "best": run.best(key),
        "training_loss": average_last_losses(run),
        "seconds_per_step": run.seconds_per_step,
        "peak_memory_bytes": run.summary.get("peak_memory_bytes"),
        "parameters": run.summary.get("parameters"),
        "seconds": run.summary.get("seconds"),
    }


def average_last_losses(run):
    """Averages the last tenth of the training losses; None without any."""
    losses = [row["train/loss"] for row in run.entries if "train/loss" in row]
    last = losses[-math.ceil(len(losses) / 10) :]
    last = [loss for loss in last if loss is not None]
    return statistics.fmean(last) if last else None


def format_mean(values, digits=2, factor=1):
    """Formats mean ± sample standard deviation, such as `91.23 ± 0.41`.

    Args:
        values: Numbers; None and NaN are left out and counted.
        digits: Number of decimals.
        factor: The numbers are multiplied by it.

    Returns:
        The text, without deviation for one number or `digits=0`, and empty for
        no number.
    """
    every = pd.Series(values, dtype=float)
    found = every.dropna()
    if found.empty:
        return ""
    text = f"{statistics.fmean(found) * factor:,.{digits}f}"
    if len(found) > 1 and digits:  # Sizes have no deviation worth showing.
        text += f" ± {found.std() * factor:,.{digits}f}"
    if len(found) < len(every):
        text += f" ({len(found)} of {len(every)})"
    return text


def summarize(groups, program):
    """Makes a data frame of texts with one row per group.

    Unfinished runs count only in groups without a finished one.

    Args:
        groups: Dict from label to a list of `Run`.
        program: The `Program` of the runs.
    """
    rows = {}
    for label, runs in groups.items():
        finished = [run for run in runs if run.is_finished]
        count = f"{len(finished)} of " if len(finished) < len(runs) else ""
        values = [measure(run, program) for run in finished or runs]
        frame = pd.DataFrame(values, columns=values[0])
        rows[label] = {
            "seeds": f"{count}{len(runs)}",
            **{
                m.heading: format_mean(frame[m.key], m.digits, m.factor)
                for m in program.columns
            },
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.loc[:, (table != "").any()]


def _label_network(config):
    names = ("model", "norm")
    if config["init_model"] is not None:
        names = ("init_model", "convert_to")
    given = [name for name in names if config[name] is not None]
    return " ".join(format_flag(name, config[name]) for name in given)
