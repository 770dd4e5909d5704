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


def _network(config, data):
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
    )
    print("\n".join(notes))
    return model


def _head(model):
    """The last layer with weights."""
    return [[layer for layer in model.layers if layer.weights][-1]]


def _trainer(model, config, data, pads):
    del data
    return trainer.Classifier(model, config, pads)


def _mixer(config, source, pipeline):
    return mixup.make_mixup(config, source.num_classes, pipeline)


def _export(config, data, model):
    names = data.source.class_names
    return export.describe_export(
        export.export_classifier(config, model, names)
    )


def _outcome(last, best, summary):
    if not best:
        return ""
    return (
        f"evaluated on {last['eval/examples']:,} of "
        f"{summary['num_eval']:,} examples: top-1 "
        f"{last['eval/accuracy']:.2%}, top-5 "
        f"{last['eval/top5_accuracy']:.2%}, best top-1 "
        f"{best['eval/accuracy']:.2%} at step {best['step']}"
    )


def _evaluated(values):
    return (
        f"{values['examples']:,} examples, top-1 {values['accuracy']:.2%}, "
        f"top-5 {values['top5_accuracy']:.2%}, loss {values['loss']:.4f}"
    )


def _tiles(last, best):
    if not best:
        return []
    return [
        ("top-1, last", f"{last['eval/accuracy']:.2%}"),
        ("top-1, best", f"{best['eval/accuracy']:.2%}"),
        ("top-5, last", f"{last['eval/top5_accuracy']:.2%}"),
        ("examples evaluated", f"{last['eval/examples']:,}"),
    ]


def _both(name):
    return {split: f"{split}/{name}" for split in ("train", "eval")}


TASK = Task(
    open_source=datasets.open_source,
    training_examples=examples.training_examples,
    evaluation_examples=examples.evaluation_examples,
    mixer=_mixer,
    network=_network,
    head=_head,
    trainer=_trainer,
    export=_export,
    training_text="loss {loss:.4f}  accuracy {accuracy:.2%}",
    evaluation_text="eval {accuracy:.2%}",
    panels=(
        ("cross-entropy", 1, _both("loss")),
        ("top-1 accuracy, %", 100, _both("accuracy")),
        ("top-5 accuracy, %", 100, _both("top5_accuracy")),
        ("learning rate", 1, {"train": "train/learning_rate"}),
    ),
    outcome=_outcome,
    evaluated=_evaluated,
    tiles=_tiles,
    pictures=evaluation_report.render_evaluation,
    predictor=predict_labels,
)
