"""Batches for training and evaluation, a pure function of their position.

Position `p` of the training is step `p // B`, row `p % B`, where B is the
global batch size. Which example stands there, and how it is augmented, follows
from the seed, the epoch and the place within the epoch, and from nothing else:
not from where the run went on, nor from the number of replicas or workers.
"""

import dataclasses
import time
from collections.abc import Callable

import tensorflow as tf

from recipes.data import autotune
from recipes.data import examples
from recipes.data.decode_errors import BadImages
from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches `(images, targets, weights)` and what is known of them.

    Images are float32 `(n, size, size, channels)` in [-1, 1], where n is the
    global batch size, in evaluation that of the evaluation, or with a context
    that of a replica. Targets are the task's: of a classification, labels int64
    `(n,)`, in training with mixup or CutMix float32 `(n, num_classes)`.
    Weights are float32 `(n,)`: 1, but 0 for what fills the last batch and for
    images that could not be used; both are zeros.

    Attributes:
        train: `f(first_step, context=None)` gives the training batches from
            that step on. `context` is the `tf.distribute.InputContext` that
            `strategy.distribute_datasets_from_function` hands out: with it
            come the batches of the replicas of that input pipeline, in order,
            whose rows together are those of the global batches.
        evaluation: `f(context=None, split="evaluation")` gives evaluation
            batches, every example of that split of the source once.
        num_train: Number of training examples.
        num_eval: Number of evaluation examples.
        num_classes: Number of classes.
        image_shape: `(size, size, channels)`.
        steps_per_epoch: Batches in an epoch.
        num_steps: Steps of the whole training.
        num_epochs: Epochs that they take, the last one perhaps in part.
        num_eval_batches: Batches of an evaluation, over all replicas.
        eval_batch_size: Images a step of an evaluation.
        global_batch_size: Images a step.
        source: The set itself, as its task opens it.
        bad_images: The `BadImages` that its batches fill.
    """

    train: Callable
    evaluation: Callable
    num_train: int
    num_eval: int
    num_classes: int
    image_shape: tuple
    steps_per_epoch: int
    num_steps: int
    num_epochs: int
    num_eval_batches: int
    eval_batch_size: int
    global_batch_size: int
    source: object
    bad_images: BadImages


@dataclasses.dataclass(frozen=True)
class _Share:
    """The rows of a global batch that one input pipeline makes.

    Attributes:
        first_row: The first of this pipeline's.
        num_rows: How many it makes.
        replica_batch_size: How many go to each of its replicas.
        pipeline: The pipeline's number.
    """

    first_row: int
    num_rows: int
    replica_batch_size: int
    pipeline: int


def make(config, task):
    """The data of a run.

    Args:
        config: The config of the run.
        task: Its `Task`.

    Raises:
        RecipeError: if the dataset cannot be had, or does not fill a batch.
    """
    source = task.open_source(config)
    bad_images = BadImages(config.dataset, config.on_bad_image)
    num_train = source.train.num_examples
    num_eval = source.evaluation.num_examples
    steps_per_epoch = num_train // config.global_batch_size
    if not config.drop_remainder:
        steps_per_epoch = -(-num_train // config.global_batch_size)
    if steps_per_epoch == 0:
        raise RecipeError(
            f"{config.dataset} has {num_train} training images, which do not "
            f"fill one batch of --global_batch_size="
            f"{config.global_batch_size}; --nodrop_remainder fills it up."
        )
    num_steps = config.train_steps
    if num_steps is None:
        num_steps = max(round(config.train_epochs * steps_per_epoch), 1)
    eval_batch_size = config.eval_batch_size or config.global_batch_size
    num_eval_batches = -(-num_eval // eval_batch_size)

    def train(first_step, context=None):
        share = _share(config.global_batch_size, context)
        example = examples.training(
            task, source, config, steps_per_epoch, bad_images
        )
        mix = task.batch_mixer(config, source, share.pipeline)
        return _train_batches(example, mix, (first_step, num_steps), share)

    def evaluation(context=None, split="evaluation"):
        share = _share(eval_batch_size, context)
        example = examples.evaluation(
            task, source, config, eval_batch_size, split, bad_images
        )
        num_examples = getattr(source, split).num_examples
        return _eval_batches(
            example, -(-num_examples // eval_batch_size), share
        )

    return Data(
        train=train,
        evaluation=evaluation,
        num_train=num_train,
        num_eval=num_eval,
        num_classes=source.num_classes,
        image_shape=(config.image_size, config.image_size, source.num_channels),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        num_epochs=-(-num_steps // steps_per_epoch),
        num_eval_batches=num_eval_batches,
        eval_batch_size=eval_batch_size,
        global_batch_size=config.global_batch_size,
        source=source,
        bad_images=bad_images,
    )


def without_training(config, source, maker, bad_images, batch_size):
    """The data of a run that predicts.

    Args:
        config: Its config.
        source: A source whose evaluation examples are to be predicted.
        maker: Their `examples.Maker`.
        bad_images: The `BadImages` of the run.
        batch_size: Images a step.
    """
    split = source.evaluation
    num_batches = -(-split.num_examples // batch_size)

    def evaluation(context=None):
        example = examples.evaluated(maker, split, batch_size)
        share = _share(batch_size, context)
        return _eval_batches(example, num_batches, share)

    return Data(
        train=None,
        evaluation=evaluation,
        num_train=0,
        num_eval=split.num_examples,
        num_classes=source.num_classes,
        image_shape=(config.image_size, config.image_size, source.num_channels),
        steps_per_epoch=1,
        num_steps=1,
        num_epochs=1,
        num_eval_batches=num_batches,
        eval_batch_size=batch_size,
        global_batch_size=batch_size,
        source=source,
        bad_images=bad_images,
    )


def measure_rate(data, seconds=1.0):
    """Images per second of the training input alone, on this machine."""
    # A short training is over in no time: its batches come again.
    batches = iter(data.train(0).repeat())
    next(batches)
    num_batches, start = 0, time.perf_counter()
    for _ in batches:
        num_batches += 1
        if time.perf_counter() - start > seconds:
            break
    elapsed = time.perf_counter() - start
    return num_batches * data.global_batch_size / elapsed


def _share(size, context):
    if context is None:
        return _Share(0, size, size, 0)
    num_rows = size // context.num_input_pipelines
    return _Share(
        first_row=context.input_pipeline_id * num_rows,
        num_rows=num_rows,
        replica_batch_size=context.get_per_replica_batch_size(size),
        pipeline=context.input_pipeline_id,
    )


def _train_batches(example, mix, steps, share):
    rows = _rows(example, steps, share)
    if mix is None:
        batches = rows.batch(share.replica_batch_size, drop_remainder=True)
    else:
        wholes = rows.batch(share.num_rows, drop_remainder=True)
        batches = _map(wholes.enumerate(steps[0]), mix).rebatch(
            share.replica_batch_size, drop_remainder=True
        )
    return autotune.off(batches.prefetch(tf.data.AUTOTUNE))


def _eval_batches(example, num_batches, share):
    rows = _rows(example, (0, num_batches), share)
    batches = rows.batch(share.replica_batch_size, drop_remainder=True)
    return autotune.off(batches.prefetch(tf.data.AUTOTUNE))


def _rows(example, steps, share):
    """The examples of a share of the global batches, from step to step."""
    first, end = (step * share.num_rows for step in steps)

    def row(i):
        return example(
            i // share.num_rows, share.first_row + i % share.num_rows
        )

    return _map(tf.data.Dataset.range(first, end), row)


def _map(dataset, function):
    # No Python here is meant for AutoGraph, which takes long over Keras' code.
    return dataset.map(
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
