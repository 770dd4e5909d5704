"""What to mind where runs are compared, in sentences."""

import collections

# Lengths that differ by less are the same but for whole steps.
TOLERANCE = 0.01


def find(groups):
    """The sentences for these groups; none where nothing is to be minded."""
    runs = [run for group in groups for run in group.runs]
    return [
        *_unfinished(runs),
        *_datasets(runs),
        *_lengths(runs),
        *_examples(runs),
        *_same_seeds(groups),
        *_single(groups),
        *_left_out(runs),
    ]


def _unfinished(runs):
    names = [
        f"{run.folder} (epoch {run.epoch:g})"
        for run in runs
        if not run.is_finished
    ]
    if names:
        yield (
            f"Unfinished: {', '.join(names)}. The table leaves them out, but "
            "where no run of a row is finished it shows their newest values."
        )


def _datasets(runs):
    names = sorted({run.config["dataset"] for run in runs})
    if len(names) > 1:
        yield (
            f"These runs are of different datasets, {', '.join(names)}: their "
            "losses and errors cannot be compared."
        )


def _lengths(runs):
    lengths = [_length(run) for run in runs]
    lengths = [length for length in lengths if length]
    if lengths and max(lengths) > (1 + TOLERANCE) * min(lengths):
        yield (
            "These runs are of different lengths, from "
            f"{min(lengths):g} to {max(lengths):g} epochs: their final values "
            "are not of equal training."
        )


def _length(run):
    """Length of the whole run in epochs; None where that is not known."""
    return run.epoch if run.is_finished else run.config["train_epochs"]


def _examples(runs):
    """Of one dataset, tests on another number of images."""
    nums = collections.defaultdict(set)
    for run in runs:
        num = run.final("eval/examples")
        if num is not None:
            nums[run.config["dataset"]].add(num)
    for dataset, found in nums.items():
        if len(found) > 1:
            texts = [f"{num:,}" for num in sorted(found)]
            yield (
                f"Tests on {dataset} were on different numbers of images: "
                f"{', '.join(texts)}."
            )


def _same_seeds(groups):
    for group in groups:
        folders = collections.defaultdict(list)
        for run in group.runs:
            folders[run.config["seed"]].append(f"{run.folder}")
        for seed, names in folders.items():
            if len(names) > 1:
                yield (
                    f"Runs of the same settings and the same seed {seed} count "
                    f"as several: {', '.join(names)}."
                )


def _single(groups):
    if len(groups) > 1 and all(len(group.runs) == 1 for group in groups):
        yield (
            "One run each: nothing here tells a difference from chance. Runs "
            "that differ in --seed alone are taken together."
        )


def _left_out(runs):
    for run in runs:
        skipped = run.summary.get("skipped_updates")
        if skipped:
            yield f"{run.folder} skipped {skipped} updates, not finite."
        bad = run.summary.get("bad_images")
        if bad:
            yield f"{run.folder} left out {len(bad)} images it could not read."
        for key, name in (("train/loss", "training"), ("eval/loss", "test")):
            has_key = any(key in row for row in run.rows)
            if has_key and run.final(key) is None:
                yield f"{run.folder}: its newest {name} loss is not finite."
