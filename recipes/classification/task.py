"""Image classification, the task of `recipes/imagenet.py`."""

from recipes.classification import datasets
from recipes.classification import evaluation_report
from recipes.classification import examples
from recipes.classification import export
from recipes.classification import mixup
from recipes.classification import predict_labels
from recipes.classification import trainer
from recipes.models import classifiers
from recipes.models import norms
from recipes.models import pretrained
from recipes.task import Task


def _both_splits(name):
    return {split: f"{split}/{name}" for split in ("train", "eval")}


class ImageClassification(Task):
    """Image classification."""

    training_progress = "loss {loss:.4f}  accuracy {accuracy:.2%}"
    evaluation_progress = "eval {accuracy:.2%}"
    panels = (
        ("cross-entropy", 1, _both_splits("loss")),
        ("top-1 accuracy, %", 100, _both_splits("accuracy")),
        ("top-5 accuracy, %", 100, _both_splits("top5_accuracy")),
        ("learning rate", 1, {"train": "train/learning_rate"}),
    )
    prediction_columns = predict_labels.COLUMNS

    def open_source(self, config):
        return datasets.open_source(config)

    def training_examples(self, config, source, bad_images):
        return examples.training_examples(config, source, bad_images)

    def evaluation_examples(self, config, source, bad_images):
        return examples.evaluation_examples(config, source, bad_images)

    def batch_mixer(self, config, source, pipeline):
        return mixup.make_mixup(config, source.num_classes, pipeline)

    def build_model(self, config, data, fit=None):
        if config.init_model is None:
            return classifiers.make_classifier(
                config.model,
                norms.get_norm(config),
                data.image_shape,
                data.num_classes,
            )
        model, notes = pretrained.load_classifier(
            config.init_model,
            norms.get_conversion_norm(config),
            data.image_shape,
            data.num_classes,
            config.precision,
            needs_head=config.takes_whole_model,
            fit=fit,
        )
        print("\n".join(notes))
        return model

    def head_layers(self, model):
        """Returns the last layer that has weights."""
        return [[layer for layer in model.layers if layer.weights][-1]]

    def make_trainer(self, model, config, data, pads):
        del data
        return trainer.Classifier(model, config, pads)

    def export(self, config, data, model):
        names = data.source.class_names
        return export.describe_export(
            export.export_classifier(config, model, names)
        )

    def describe_result(self, last, best, summary):
        if not best:
            return ""
        return (
            f"evaluated on {last['eval/examples']:,} of "
            f"{summary['num_eval']:,} examples: top-1 "
            f"{last['eval/accuracy']:.2%}, top-5 "
            f"{last['eval/top5_accuracy']:.2%}, best top-1 "
            f"{best['eval/accuracy']:.2%} at step {best['step']}"
        )

    def describe_evaluation(self, metrics):
        return (
            f"{metrics['examples']:,} examples, "
            f"top-1 {metrics['accuracy']:.2%}, "
            f"top-5 {metrics['top5_accuracy']:.2%}, "
            f"loss {metrics['loss']:.4f}"
        )

    def report_tiles(self, last, best):
        if not best:
            return []
        return [
            ("top-1, last", f"{last['eval/accuracy']:.2%}"),
            ("top-1, best", f"{best['eval/accuracy']:.2%}"),
            ("top-5, last", f"{last['eval/top5_accuracy']:.2%}"),
            ("examples evaluated", f"{last['eval/examples']:,}"),
        ]

    def report_pictures(self, config, data):
        return evaluation_report.render_evaluation(config, data)

    def open_images(self, metadata, paths):
        return predict_labels.open_images(metadata, paths)

    def image_examples(self, config, source, bad_images):
        return predict_labels.image_examples(config, source, bad_images)

    def predict_batch(self, config, trainer, batch):
        return predict_labels.predict_batch(config, trainer, batch)

    def prediction_entry(self, config, class_names, outputs):
        return predict_labels.make_entry(config, class_names, outputs)

    def prediction_rows(self, entry):
        return predict_labels.make_lines(entry)
