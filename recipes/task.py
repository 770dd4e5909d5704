"""What a kind of run does in its own way; the rest of the recipes is shared."""

import dataclasses
import importlib
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of training: its data, its network, its numbers, its pages.

    Attributes:
        open_source: `f(config)` gives the set: `train` and `evaluation` with
            `num_examples`, `num_classes` and `num_channels`.
        training_examples: `f(config, source, bad_images)` gives an
            `ExampleReader`; `bad_images` is the `BadImages` of the run.
        evaluation_examples: The same, of the evaluation.
        mixer: `f(config, source, pipeline)` gives `f(step, batch)`, which works
            on the share of the batch of an input pipeline; or None.
        network: `f(config, data)` gives the Keras model that is trained.
        head: `f(model)` gives the layers that `--freeze=backbone` leaves.
        trainer: `f(model, config, data, pads)` gives the `Trainer`.
        export: `f(config, data, model)` writes the model for other programs and
            gives the line that says so.
        training_text: What the progress shows of a training row, a format of
            the names of `train/` values.
        evaluation_text: The same, of `eval/` values.
        panels: Of the report's four figures `(axis label, factor, keys)`, where
            `keys` is a dict from `"train"` and `"eval"` to the values that are
            shown in the color of that split.
        outcome: `f(last, best, summary)` gives the result in a sentence, or
            nothing.
        evaluated: `f(values)` gives the values of an evaluation in a line.
        tiles: `f(last, best)` gives the report's first figures, `(name, text)`.
        pictures: `f(config, data)` gives HTML for the report, or nothing.
        predictor: The module that predicts images without labels, see
            `predict`.
    """

    open_source: Callable
    training_examples: Callable
    evaluation_examples: Callable
    mixer: Callable
    network: Callable
    head: Callable
    trainer: Callable
    export: Callable
    training_text: str
    evaluation_text: str
    panels: tuple
    outcome: Callable
    evaluated: Callable
    tiles: Callable
    pictures: Callable
    predictor: object


def of(config):
    """The task of a config."""
    return importlib.import_module(config.TASK).TASK
