"""Batches for training and evaluation, with exact sizes."""

import dataclasses
import time
from collections.abc import Callable

import tensorflow as tf

from recipes import augment
from recipes import sources
from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches `(images, labels, weights)` and what is known of them.

    Images are float32 `(global_batch_size, size, size, channels)` in [-1, 1],
    labels int64, weights 1; padding of the last evaluation batch has weight 0.

    Attributes:
        train: `f(first_epoch)` gives the training batches from there on.
        evaluation: The evaluation batches, every example once.
        num_train: Number of training examples.
        num_eval: Number of evaluation examples.
        num_classes: Number of classes.
        image_shape: `(size, size, channels)`.
        steps_per_epoch: Full batches in an epoch.
        num_steps: Steps of the whole training.
        num_epochs: Epochs that they take, the last one perhaps in part.
        global_batch_size: Images a batch.
    """

    train: Callable
    evaluation: tf.data.Dataset
    num_train: int
    num_eval: int
    num_classes: int
    image_shape: tuple
    steps_per_epoch: int
    num_steps: int
    num_epochs: int
    global_batch_size: int


def make(config):
    """The data of a run.

    Raises:
        RecipeError: if the dataset cannot be had, or does not fill a batch.
    """
    source = sources.open_source(config)
    steps_per_epoch = source.num_train // config.global_batch_size
    if steps_per_epoch == 0:
        raise RecipeError(
            f"{config.dataset} has {source.num_train} training images, which "
            f"do not fill one batch of --global_batch_size="
            f"{config.global_batch_size}."
        )
    num_steps = config.train_steps
    if num_steps is None:
        num_steps = max(round(config.train_epochs * steps_per_epoch), 1)
    num_epochs = -(-num_steps // steps_per_epoch)
    return Data(
        train=lambda first_epoch: _train_batches(
            source, config, first_epoch, num_epochs
        ),
        evaluation=_eval_batches(source, config),
        num_train=source.num_train,
        num_eval=source.num_eval,
        num_classes=source.num_classes,
        image_shape=(config.image_size, config.image_size, source.num_channels),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        num_epochs=num_epochs,
        global_batch_size=config.global_batch_size,
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


def _augmentation(source, config):
    if config.augmentation == "auto":
        return source.augmentation
    return config.augmentation


def _train_batches(source, config, first_epoch, num_epochs):
    augmentation = _augmentation(source, config)

    def of_epoch(epoch):
        order = tf.stack([tf.constant(config.seed, tf.int64), epoch])

        def prepare(index, example):
            image, label = example
            seed = tf.random.fold_in(order, index)
            image = augment.train_image(
                image,
                seed,
                augmentation,
                config.image_size,
                source.num_channels,
            )
            return image, label, 1.0

        return (
            source.train(config.seed, epoch)
            .enumerate()
            .map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(config.global_batch_size, drop_remainder=True)
        )

    epochs = tf.data.Dataset.range(first_epoch, num_epochs)
    return epochs.flat_map(of_epoch).prefetch(tf.data.AUTOTUNE)


def _eval_batches(source, config):
    augmentation = _augmentation(source, config)
    size = config.global_batch_size

    def prepare(image, label):
        image = augment.eval_image(
            image, augmentation, config.image_size, source.num_channels
        )
        return image, label, 1.0

    def fill(*batch):
        missing = size - tf.shape(batch[0])[0]
        return tuple(_pad(column, missing, size) for column in batch)

    num_batches = -(-source.num_eval // size)
    return (
        source.evaluation()
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(size)
        .map(fill)
        # Fails on a set that holds more or less than it says.
        .apply(tf.data.experimental.assert_cardinality(num_batches))
        .prefetch(tf.data.AUTOTUNE)
    )


def _pad(column, missing, size):
    """Zeros at the end: of the weights too, so that padding counts nothing."""
    padding = [[0, missing]] + [[0, 0]] * (column.shape.rank - 1)
    padded = tf.pad(column, padding)
    padded.set_shape([size, *column.shape[1:]])
    return padded
