"""The example that stands in a row of a step, whatever it is made of."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from recipes.classification import datasets


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes examples `(inputs, targets, weight)` in a graph.

    Attributes:
        make: `f(split, index, seed)` gives the example `index` of a split,
            where `index` is an int64 tensor and `seed` an int64 tensor of two
            numbers that all random choices follow from.
        blank: `f()` gives zeros of weight 0 of the same shapes.
    """

    make: Callable
    blank: Callable


def training(task, source, config, steps_per_epoch, bad_images):
    """`f(step, row)` gives the training example of that row, in a graph.

    Args:
        task: The `Task` of the run.
        source: What the task opened.
        config: The config of the run.
        steps_per_epoch: Batches in an epoch.
        bad_images: The `BadImages` of the run.
    """
    split = source.train
    maker = task.training_examples(config, source, bad_images)

    def example(step, row):
        epoch = step // steps_per_epoch
        place = step % steps_per_epoch * config.global_batch_size + row
        seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])
        seed = tf.random.fold_in(seed, place)

        def make_shuffled():
            index = datasets.shuffled(
                place, split.num_examples, config.seed, epoch
            )
            return maker.make(split, index, seed)

        return tf.cond(place < split.num_examples, make_shuffled, maker.blank)

    return example


def evaluation(task, source, config, batch_size, split, bad_images):
    """`f(step, row)` gives the evaluation example of that row, in a graph.

    Args:
        task: The `Task` of the run.
        source: What the task opened.
        config: The config of the run.
        batch_size: Examples a step.
        split: Name of the examples in the source.
        bad_images: The `BadImages` of the run.
    """
    maker = task.evaluation_examples(config, source, bad_images)
    return evaluated(maker, getattr(source, split), batch_size)


def evaluated(maker, split, batch_size):
    """`f(step, row)` gives the example of a split in that row, in a graph."""
    seed = tf.zeros(2, tf.int64)

    def example(step, row):
        index = step * batch_size + row
        return tf.cond(
            index < split.num_examples,
            lambda: maker.make(split, index, seed),
            maker.blank,
        )

    return example
