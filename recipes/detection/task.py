"""Object detection, the task of `recipes/coco.py`."""

import math

from recipes.detection import build
from recipes.detection import examples
from recipes.detection import predict_boxes
from recipes.detection import retinanet
from recipes.detection import trainer
from recipes.detection import visualization
from recipes.detection.datasets import registry
from recipes.task import Task


def _both_splits(name):
    """Returns the metric on training images, if asked for, and evaluation."""
    return {"train": f"eval/training_{name}", "eval": f"eval/{name}"}


class ObjectDetection(Task):
    """Object detection with a RetinaNet."""

    training_progress = "loss {loss:.4f}  boxes {box_loss:.4f}"
    evaluation_progress = "AP {AP:.1%}  AP50 {AP50:.1%}"
    panels = (
        ("loss", 1, {"train": "train/loss"}),
        ("AP, %", 100, _both_splits("AP")),
        ("AP50, %", 100, _both_splits("AP50")),
        ("learning rate", 1, {"train": "train/learning_rate"}),
    )
    prediction_columns = predict_boxes.COLUMNS

    def open_source(self, config):
        return registry.open_source(config)

    def training_examples(self, config, source, bad_images):
        return examples.training_examples(config, source, bad_images)

    def evaluation_examples(self, config, source, bad_images):
        return examples.evaluation_examples(config, source, bad_images)

    def build_model(self, config, data, fit=None):
        return build.build_detector(config, data, fit)

    def head_layers(self, model):
        return retinanet.head_layers(model)

    def make_trainer(self, model, config, data, pads):
        return trainer.DetectorTrainer(model, config, data, pads)

    def export(self, config, data, model):
        from recipes.detection import export

        return export.export_detector(config, data, model)

    def describe_result(self, last, best, summary):
        if not best:
            return ""
        metrics = {k.removeprefix("eval/"): v for k, v in last.items()}
        return (
            f"evaluated on {last['eval/examples']:,} of "
            f"{summary['num_eval']:,} images: {_describe_scores(metrics)}, "
            f"best AP {best['eval/AP']:.1%} at step {best['step']}"
        )

    def describe_evaluation(self, metrics):
        return f"{metrics['examples']:,} images, {_describe_scores(metrics)}"

    def report_tiles(self, last, best):
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

    def report_pictures(self, config, data):
        return visualization.render_page(config, data)

    def open_images(self, metadata, paths):
        return predict_boxes.open_images(metadata, paths)

    def image_examples(self, config, source, bad_images):
        return examples.image_examples(config, source, bad_images)

    def predict_batch(self, config, trainer, batch):
        return predict_boxes.predict_batch(config, trainer, batch)

    def prediction_entry(self, config, class_names, outputs):
        return predict_boxes.prediction_entry(config, class_names, outputs)

    def prediction_rows(self, entry):
        return predict_boxes.prediction_rows(entry)


def _describe_scores(metrics):
    names = ["AP", "AP50", "AP75", "training_AP", "training_AP50"]
    return ", ".join(
        f"{name.replace('_', ' ')} {metrics[name]:.1%}"
        for name in names
        if not math.isnan(metrics.get(name, math.nan))
    )
