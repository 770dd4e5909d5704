"""Object detection, the task of `recipes/coco.py`."""

import math

from recipes.detection import boxed
from recipes.detection import build
from recipes.detection import pictures
from recipes.detection import predict_boxes
from recipes.detection import retinanet
from recipes.detection import trainer
from recipes.detection.datasets import registry
from recipes.task import Task


def _export(config, data, model):
    from recipes.detection import export

    return export.write(config, data, model)


def _outcome(last, best, summary):
    if not best:
        return ""
    return (
        f"evaluated on {last['eval/examples']:,} of "
        f"{summary['num_eval']:,} images: "
        f"{_numbers(_values(last))}, best AP {best['eval/AP']:.1%} at step "
        f"{best['step']}"
    )


def _evaluated(values):
    return f"{values['examples']:,} images, {_numbers(values)}"


def _numbers(values):
    names = ["AP", "AP50", "AP75", "training_AP", "training_AP50"]
    return ", ".join(
        f"{name.replace('_', ' ')} {values[name]:.1%}"
        for name in names
        if not math.isnan(values.get(name, math.nan))
    )


def _values(row):
    return {k.removeprefix("eval/"): v for k, v in row.items()}


def _tiles(last, best):
    if not best:
        return []
    tiles = [
        ("AP, last", f"{last['eval/AP']:.1%}"),
        ("AP50, last", f"{last['eval/AP50']:.1%}"),
        ("AP75, last", f"{last['eval/AP75']:.1%}"),
        ("AP, best", f"{best['eval/AP']:.1%}"),
    ]
    if "eval/training_AP50" in last:
        text = f"{last['eval/training_AP50']:.1%}"
        tiles.append(("AP50 on training images", text))
    return [*tiles, ("images evaluated", f"{last['eval/examples']:,}")]


def _both(name):
    """Of the evaluation images, and of the training images if asked for."""
    return {"train": f"eval/training_{name}", "eval": f"eval/{name}"}


TASK = Task(
    open_source=registry.open_source,
    training_examples=boxed.training,
    evaluation_examples=boxed.evaluation,
    mixer=lambda config, source, pipeline: None,
    network=build.make,
    head=retinanet.head_layers,
    trainer=trainer.Detector,
    export=_export,
    training_text="loss {loss:.4f}  boxes {box_loss:.4f}",
    evaluation_text="AP {AP:.1%}  AP50 {AP50:.1%}",
    panels=(
        ("loss", 1, {"train": "train/loss"}),
        ("AP, %", 100, _both("AP")),
        ("AP50, %", 100, _both("AP50")),
        ("learning rate", 1, {"train": "train/learning_rate"}),
    ),
    outcome=_outcome,
    evaluated=_evaluated,
    tiles=_tiles,
    pictures=pictures.page,
    predictor=predict_boxes,
)
