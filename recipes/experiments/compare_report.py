"""Compares groups of runs: a table, notes, and a page with curves."""

import pathlib
import shlex
import sys

import jinja2

from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.experiments import aggregate
from recipes.experiments import plots

TEMPLATE = pathlib.Path(__file__).with_name("compare.html.jinja")
# Lengths that differ by less are equal except for rounding to whole steps.
TOLERANCE = 0.01


def write_comparison(groups, program, folder, faults=()):
    """Writes compare.png and compare.html.

    Args:
        groups: Dict from label to a list of `Run`.
        program: The `Program` of the runs.
        folder: Path to write to.
        faults: Sentences about files that cannot be read.

    Returns:
        Paths of the two files; data frame with the table; list of notes.

    Raises:
        RecipeError: if the files cannot be written.
    """
    table = aggregate.summarize(groups, program)
    notes = [*faults, *find_notes(groups)]
    figure = plots.draw_curves(groups, program)
    differing, shared = _compare_settings(groups)
    template = jinja2.Template(
        TEMPLATE.read_text(), autoescape=True, trim_blocks=True
    )
    runs = [run for runs in groups.values() for run in runs]
    datasets = sorted({run.config["dataset"] for run in runs})
    page = template.render(
        title=f"{len(runs)} runs on {', '.join(datasets)}",
        notes=notes,
        figure=plots.format_svg(figure),
        num_parts=plots.NUM_PARTS,
        table=table,
        groups=groups,
        colors=plots.COLORS,
        differing=differing,
        shared=shared,
        program=program,
        command=shlex.join(["python", *sys.argv]),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots.save(figure, folder / "compare.png", dpi=200)
        atomic_io.write_text(folder / "compare.html", page)
    except OSError as error:
        raise RecipeError(
            f"cannot write to {folder}: {error.strerror}. Choose another --out."
        ) from error
    return folder / "compare.png", folder / "compare.html", table, notes


def find_notes(groups):
    """Yields sentences about differences that make a comparison misleading."""
    runs = [run for runs in groups.values() for run in runs]
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
        yield (
            f"The runs use different datasets: {', '.join(datasets)}. Their "
            "metrics are not comparable."
        )
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
    for dataset in datasets:
        nums = {
            run.final("eval/examples")
            for run in runs
            if run.config["dataset"] == dataset
        } - {None}
        if len(nums) > 1:
            texts = [f"{num:,}" for num in sorted(nums)]
            yield (
                f"The runs on {dataset} were evaluated on different numbers of "
                f"examples: {', '.join(texts)}."
            )
    yield from _find_seed_notes(groups)
    for run in runs:
        yield from _find_faults(run)


def _find_seed_notes(groups):
    for label, runs in groups.items():
        seeds = [run.config["seed"] for run in runs]
        if len(set(seeds)) < len(seeds):
            folders = ", ".join(str(run.folder) for run in runs)
            yield (
                f"Several runs of {label} have the same seed and count as "
                f"different ones: {folders}."
            )
    if len(groups) > 1 and all(len(runs) == 1 for runs in groups.values()):
        yield (
            "Each row is a single run, so differences may be due to chance. "
            "Train with several values of --seed to average over them."
        )


def _find_faults(run):
    skipped = run.summary.get("skipped_updates")
    if skipped:
        yield f"{run.folder} skipped {skipped} non-finite updates."
    bad = run.summary.get("bad_images")
    if bad:
        yield f"{run.folder} skipped {len(bad)} images that it cannot read."
    for key, name in (("train/loss", "training"), ("eval/loss", "test")):
        if any(key in row for row in run.entries) and run.final(key) is None:
            yield f"The last {name} loss of {run.folder} is not finite."


def _compare_settings(groups):
    """Separates the settings that differ from the shared ones.

    Returns:
        Dict from name to a list with one text per group; dict from name to
        value.
    """
    runs = [run for runs in groups.values() for run in runs]
    differing, shared = {}, {}
    for name, value in runs[0].config.items():
        if name == "workdir":
            continue
        if all(run.config.get(name) == value for run in runs):
            shared[name] = value
            continue
        texts = [[str(r.config.get(name)) for r in g] for g in groups.values()]
        differing[name] = [", ".join(dict.fromkeys(each)) for each in texts]
    return differing, shared
