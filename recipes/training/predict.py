"""`--mode=predict`: predictions for images without labels."""

import csv
import json
import os
import pathlib

import numpy as np
import tensorflow as tf
from rich import progress
from rich.console import Console

from recipes import atomic_io
from recipes.data import dataset_summary
from recipes.data import image_folder
from recipes.data import input_pipeline as data_lib
from recipes.data.decode_errors import BadImages
from recipes.data.ignored_files import format_count
from recipes.data.ignored_files import join_names
from recipes.errors import RecipeError
from recipes.models import model_metadata
from recipes.run_dir import run_dir
from recipes.run_dir import run_files

CSV, JSON = "predict.csv", "predict.json"
NUM_LISTED = 5


def check(config):
    """Checks a run that predicts, before anything is written.

    Raises:
        RecipeError: if there is no run, or are no images; for another run, if
            it is given images to predict.
    """
    if (config.mode == "predict") != (config.images is not None):
        raise RecipeError(
            "--mode=predict and --images=FOLDER_OR_FILE belong together. "
            f"Received: mode={config.mode}, images={config.images}"
        )
    if config.mode != "predict":
        return
    if not config.takes_whole_model and not run_dir.stored(
        config.folder, type(config)
    ):
        raise RecipeError(
            f"--mode=predict: {run_dir.missing(config.folder)} Give the "
            "--workdir of a run, or a --checkpoint that is a .keras file."
        )
    path = pathlib.Path(config.images).expanduser()
    if not os.path.exists(path):
        raise RecipeError(
            f"--images={image_folder.printable(path)}: there is no such file "
            "or folder."
        )


def open_images(config, task, num_replicas):
    """The `Data` of the images of a config, as its evaluation examples.

    Raises:
        RecipeError: if there is no image, or the run does not say its classes.
    """
    root = pathlib.Path(config.images).expanduser()
    paths, notes = [os.fspath(root)], ""
    if root.is_dir():
        paths, notes = image_folder.find_images(root)
    shown = image_folder.printable(root)
    if not paths:
        endings = ", ".join(image_folder.IMAGE_EXTENSIONS)
        raise RecipeError(
            f"--images={shown} holds no image ({endings})"
            f"{f'; {notes}' if notes else ''}."
        )
    print(
        dataset_summary.describe_images(
            shown, len(paths), [notes] if notes else []
        )
    )
    source = task.open_images(_facts(config, task), paths)
    bad_images = BadImages(config.images, "skip")
    reader = task.image_examples(config, source, bad_images)
    wanted = config.eval_batch_size or config.global_batch_size
    # A few images do not fill a batch, but each replica must have one.
    needed = -(-len(paths) // num_replicas) * num_replicas
    size = min(wanted, needed)
    return data_lib.make_prediction_data(
        config, source, reader, bad_images, size
    )


def _facts(config, task):
    """What a run's summary.json says of its data, see `class_metadata`."""
    path = config.folder / "summary.json"
    facts, _ = run_files.read_summary(path)
    if "class_names" not in facts:
        # It was stopped, or is of an earlier version: the dataset says it.
        facts = dataset_summary.class_metadata(task.open_source(config))
    if config.takes_whole_model:
        own = model_metadata.read_metadata(
            pathlib.Path(config.checkpoint).expanduser()
        )
        facts = {**facts, **{k: own[k] for k in ("class_names",) if k in own}}
    return facts


def write(config, task, steps, step, is_chief):
    """Predicts all images and writes the two files.

    Args:
        config: The config of the run.
        steps: Its `Steps`, whose evaluation examples are the images.
        step: The step that the weights are of.
        is_chief: Whether this worker writes.

    Returns:
        What was written, in lines.
    """
    data = steps.data
    names = data.source.class_names
    split = data.source.evaluation
    root = pathlib.Path(config.images).expanduser()
    folder = root if root.is_dir() else root.parent
    entries, left_out = [], []
    for row in _rows(config, task, steps, is_chief):
        i = int(row["indices"])
        path = os.path.relpath(split.path(i), folder)
        # A name that is no text is as in messages.
        image = os.fsencode(path).decode("utf-8", "replace")
        if row["weights"]:
            entry = task.prediction_entry(config, names, row)
            entries.append({"image": image, **entry})
        else:
            reason = data.bad_images.reason(split.name(i))
            left_out.append({"image": image, "reason": reason})
    content = {
        "images": image_folder.printable(root),
        "checkpoint": config.checkpoint,
        "step": step,
        "class_names": list(names),
        "predictions": entries,
        "left_out": left_out,
    }
    if is_chief:
        _write_files(config.folder, task, content)
    return _describe(config, content)


def _rows(config, task, steps, is_chief):
    """What is found of every image, in their order, as dicts of arrays."""
    data, strategy = steps.data, steps.strategy

    def run(batch):
        found = strategy.run(
            lambda b: task.predict_batch(config, steps.trainer, b), (batch,)
        )
        return {k: strategy.gather(v, axis=0) for k, v in found.items()}

    compiled = tf.function(run, autograph=False)
    batches = steps.distributed(data.evaluation)
    console = Console()
    with progress.Progress(
        progress.TextColumn("predicting"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not (is_chief and console.is_terminal),
    ) as bar:
        shown = bar.add_task("predict", total=data.num_eval)
        for _ in range(data.num_eval_batches):
            found = {k: v.numpy() for k, v in compiled(next(batches)).items()}
            # Those that fill the last batch have no number.
            rows = np.flatnonzero(found["indices"] >= 0)
            for row in rows:
                yield {name: values[row] for name, values in found.items()}
            bar.advance(shown, len(rows))


def _write_files(folder, task, content):
    with atomic_io.file(folder / CSV) as path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(task.prediction_columns)
            for entry in content["predictions"]:
                writer.writerows(task.prediction_rows(entry))
    with atomic_io.file(folder / JSON) as path:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


def _describe(config, content):
    left_out, number = content["left_out"], len(content["predictions"])
    lines = []
    if left_out:
        reasons = [
            f"{image_folder.printable(each['image'])} {each['reason']}"
            for each in left_out
        ]
        lines.append(
            f"left out {format_count(len(left_out), 'image')}: "
            f"{join_names(reasons, NUM_LISTED)}"
        )
    files = f"{config.folder / CSV} and {JSON}"
    lines.append(f"predicted {format_count(number, 'image')}, see {files}")
    return "\n".join(lines)
