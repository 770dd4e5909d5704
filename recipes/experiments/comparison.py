"""Compares groups of runs: a table, notes, and a page with curves."""

import base64
import pathlib
import shlex
import sys

import jinja2
import pandas as pd

from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.experiments import plots
from recipes.experiments import results
from recipes.experiments.programs import PROGRAMS

TEMPLATE = pathlib.Path(__file__).with_name("compare.html.jinja")
# Lengths that differ by less are equal except for rounding to whole steps.
TOLERANCE = 0.01


def get_program(runs):
    """Returns the `Program` of all runs.

    Raises:
        RecipeError: if they belong to different programs.
    """
    programs = {program.config: program for program in PROGRAMS.values()}
    folders = {programs[run.config_class]: run.folder for run in runs}
    program, *others = folders
    if others:
        raise RecipeError(
            "runs of different programs have no metric in common. Compare them "
            f"separately. Received: {', '.join(map(str, folders.values()))}"
        )
    return program


def write_comparison(runs, folder, faults=()):
    """Writes compare.png and compare.html.

    Args:
        runs: List of `RecordedRun` of one program.
        folder: Path to write to.
        faults: Sentences about files that cannot be read.

    Returns:
        Data frame with the table; list of notes.

    Raises:
        RecipeError: if the runs belong to different programs, or the files
            cannot be written.
    """
    program, groups = get_program(runs), results.group_runs(runs)
    table = results.summarize(groups, program)
    notes = [*faults, *find_notes(groups)]
    configs = pd.DataFrame(
        {name: str(value) for name, value in run.config.items()} for run in runs
    ).drop(columns="workdir")
    differs = configs.nunique(dropna=False) > 1
    labels = {id(run): label for label in groups for run in groups[label]}
    state = pd.DataFrame(
        {
            "workdir": str(run.folder),
            "runs": labels[id(run)],
            "epochs": f"{run.epoch:g}",
            "state": "finished" if run.is_finished else "unfinished",
        }
        for run in runs
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / "compare.png"
        plots.save(plots.draw_curves(groups, program), picture, dpi=200)
        template = jinja2.Template(TEMPLATE.read_text(), autoescape=True)
        with pd.option_context("display.max_colwidth", None):
            page = template.render(
                notes=notes,
                figure=base64.b64encode(picture.read_bytes()).decode(),
                tables={
                    "Results": table,
                    "Runs": state.join(configs.loc[:, differs]),
                    "Shared settings": configs.loc[0, ~differs].to_frame(""),
                },
                program=program,
                num_parts=plots.NUM_PARTS,
                command=shlex.join(["python", *sys.argv]),
            )
        atomic_io.write_text(folder / "compare.html", page)
    except OSError as error:
        raise RecipeError(
            f"cannot write to {folder}: {error.strerror}. Choose another --out."
        ) from error
    return table, notes


def find_notes(groups):
    """Yields sentences about differences that make a comparison misleading."""
    runs = [run for members in groups.values() for run in members]
    unfinished = [
        f"{run.folder} (epoch {run.epoch:g})"
        for run in runs
        if not run.is_finished
    ]
    if unfinished:
        yield (
            f"Unfinished: {', '.join(unfinished)}. The table leaves them out, "
            "except in rows without a finished run."
        )
    datasets = sorted({run.config["dataset"] for run in runs})
    if len(datasets) > 1:
        yield f"The runs use different datasets: {', '.join(datasets)}."
    # Some runs of a given number of steps have no length in epochs yet.
    lengths = [
        run.epoch if run.is_finished else run.config["train_epochs"]
        for run in runs
    ]
    lengths = [length for length in lengths if length]
    if lengths and max(lengths) > (1 + TOLERANCE) * min(lengths):
        yield (
            f"The runs have different lengths, from {min(lengths):g} to "
            f"{max(lengths):g} epochs."
        )
    nums = {(r.config["dataset"], r.final("eval/examples")) for r in runs}
    nums = sorted(num for _, num in nums if num is not None)
    if len(nums) > len(datasets):
        yield (
            "The runs were evaluated on different numbers of examples: "
            f"{', '.join(f'{num:,}' for num in nums)}."
        )
    for label, members in groups.items():
        if len({run.config["seed"] for run in members}) < len(members):
            folders = ", ".join(str(run.folder) for run in members)
            yield f"Several runs of {label} have the same seed: {folders}."
    if len(runs) == len(groups) > 1:
        yield (
            "Each row is a single run, so differences may be due to chance. "
            "Train with several values of --seed to average over them."
        )
    for run in runs:
        if run.summary.get("skipped_updates"):
            num = run.summary["skipped_updates"]
            yield f"{run.folder} skipped {num} non-finite updates."
        if run.summary.get("bad_images"):
            num = len(run.summary["bad_images"])
            yield f"{run.folder} skipped {num} images that it cannot read."
        for key, name in (("train/loss", "training"), ("eval/loss", "test")):
            if run.final(key) is None and any(key in e for e in run.entries):
                yield f"The last {name} loss of {run.folder} is not finite."
