"""`--mode=predict`: predictions for images without labels."""

import csv
import json
import os
import pathlib

import numpy as np
import tensorflow as tf
from rich import progress
from rich.console import Console

from keras_norm.errors import printable
from recipes import atomic_io
from recipes.data import dataset_summary
from recipes.data import image_folder
from recipes.data import input_pipeline
from recipes.data.decode_errors import BadImages
from recipes.data.ignored_files import format_count
from recipes.data.ignored_files import join_names
from recipes.errors import RecipeError
from recipes.models import model_metadata
from recipes.run_dir import run_dir
from recipes.run_dir.metrics_log import read_summary

CSV_FILE, JSON_FILE = "predict.csv", "predict.json"
# Number of images left out that the message names.
NUM_LISTED = 5
_METADATA = {"class_names", "num_channels", "suited_augmentation"}


def check_images(config):
    """Checks `--images` before anything is written.

    Raises:
        RecipeError: if `--images` does not fit `--mode`, the images do not
            exist, or there is no run to predict with.
    """
    if (config.mode == "predict") != (config.images is not None):
        raise RecipeError(
            "--mode=predict and --images=FOLDER_OR_FILE belong together. "
            f"Received: mode={config.mode}, images={config.images}"
        )
    if config.mode != "predict":
        return
    if not config.takes_whole_model and not run_dir.stored_settings(
        config.folder, type(config)
    ):
        raise RecipeError(
            f"--mode=predict: {run_dir.describe_missing_run(config.folder)} "
            "Give the --workdir of a run, or a --checkpoint that is a .keras "
            "file."
        )
    path = pathlib.Path(config.images).expanduser()
    if not os.path.exists(path):
        raise RecipeError(
            f"--images={printable(path)}: the file or folder does not exist."
        )


def open_images(config, task, num_replicas):
    """Returns `Data` with the images of `--images` as evaluation examples.

    Raises:
        RecipeError: if there are no images, or the class names are unknown.
    """
    root = pathlib.Path(config.images).expanduser()
    paths, notes = [os.fspath(root)], ""
    if root.is_dir():
        paths, notes = image_folder.find_images(root)
    shown = printable(root)
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
    source = task.open_images(_read_metadata(config, task), paths)
    bad_images = BadImages(config.images, "skip")
    reader = task.image_examples(config, source, bad_images)
    batch_size = config.eval_batch_size or config.global_batch_size
    # Few images do not fill a batch, but each replica must get at least one.
    fewest = -(-len(paths) // num_replicas) * num_replicas
    return input_pipeline.make_prediction_data(
        config, source, reader, bad_images, min(batch_size, fewest)
    )


def _read_metadata(config, task):
    """Returns the dataset metadata of the run or of the model file."""
    metadata, _ = read_summary(config.folder / "summary.json")
    if not _METADATA <= metadata.keys():
        # Unfinished runs and runs of earlier versions: ask the dataset.
        metadata = dataset_summary.class_metadata(task.open_source(config))
    if config.takes_whole_model:
        path = pathlib.Path(config.checkpoint).expanduser()
        of_model = model_metadata.read_metadata(path)
        if "class_names" in of_model:
            metadata = {**metadata, "class_names": of_model["class_names"]}
    return metadata


def write_predictions(config, task, steps, step, is_chief):
    """Predicts all images and writes predict.csv and predict.json.

    Args:
        config: The config of the run.
        task: Its `Task`.
        steps: Its `CompiledSteps`, whose evaluation examples are the images.
        step: Step of the checkpoint.
        is_chief: Whether this worker writes the files.

    Returns:
        A message about the files.
    """
    data = steps.data
    class_names = data.source.class_names
    split = data.source.evaluation
    root = pathlib.Path(config.images).expanduser()
    folder = root if root.is_dir() else root.parent
    entries, left_out = [], []
    for outputs in _predict(config, task, steps, is_chief):
        i = int(outputs["indices"])
        path = os.path.relpath(split.path(i), folder)
        # File names need not be valid text.
        image = os.fsencode(path).decode("utf-8", "replace")
        if outputs["weights"]:
            entry = task.prediction_entry(config, class_names, outputs)
            entries.append({"image": image, **entry})
        else:
            reason = data.bad_images.reason(split.name(i))
            left_out.append({"image": image, "reason": reason})
    content = {
        "images": printable(root),
        "checkpoint": config.checkpoint,
        "step": step,
        "class_names": list(class_names),
        "predictions": entries,
        "left_out": left_out,
    }
    if is_chief:
        _write_files(config.folder, task, content)
    return _describe(config, content)


def _predict(config, task, steps, is_chief):
    """Yields the outputs for each image in order, as dicts of arrays."""
    data, strategy = steps.data, steps.strategy

    def predict_batch(batch):
        outputs = strategy.run(
            lambda b: task.predict_batch(config, steps.trainer, b), (batch,)
        )
        return {k: strategy.gather(v, axis=0) for k, v in outputs.items()}

    compiled = tf.function(predict_batch, autograph=False)
    batches = steps.distribute(data.evaluation)
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
            outputs = compiled(next(batches))
            outputs = {k: v.numpy() for k, v in outputs.items()}
            # Padding of the last batch has negative indices.
            examples = np.flatnonzero(outputs["indices"] >= 0)
            for i in examples:
                yield {name: values[i] for name, values in outputs.items()}
            bar.advance(shown, len(examples))


def _write_files(folder, task, content):
    with atomic_io.atomic_file(folder / CSV_FILE) as path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(task.prediction_columns)
            for entry in content["predictions"]:
                writer.writerows(task.prediction_rows(entry))
    with atomic_io.atomic_file(folder / JSON_FILE) as path:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


def _describe(config, content):
    left_out, number = content["left_out"], len(content["predictions"])
    lines = []
    if left_out:
        reasons = [
            f"{printable(each['image'])} {each['reason']}" for each in left_out
        ]
        lines.append(
            f"left out {format_count(len(left_out), 'image')}: "
            f"{join_names(reasons, NUM_LISTED)}"
        )
    files = f"{config.folder / CSV_FILE} and {JSON_FILE}"
    lines.append(f"predicted {format_count(number, 'image')}, see {files}")
    return "\n".join(lines)
