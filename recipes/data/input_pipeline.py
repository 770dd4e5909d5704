"""Batches for training and evaluation, a pure function of their position.

With a global batch size B, training position `p` is example `p % B` of step
`p // B`. The example at a position and its augmentation depend only on the
seed, the epoch and the position within the epoch. They do not depend on the
step that a run resumes from, or on the number of replicas or workers.
"""

import dataclasses
import time
from collections.abc import Callable

import tensorflow as tf

from recipes.data.decode_errors import BadImages
from recipes.errors import RecipeError

# Duration of the measurement of the input alone.
MEASURED_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Data:
    """Batches `(images, targets, weights)` and their sizes.

    Images are float32 `(n, size, size, channels)` in [-1, 1]. Without a
    context, n is the global batch size (`eval_batch_size` in evaluation); with
    a context, it is the per-replica batch size. The task defines the targets.
    Classification has int64 labels `(n,)`, or float32 `(n, num_classes)` in
    training with mixup or CutMix. Weights are float32 `(n,)`: 0 for padding of
    the last batch and for images that cannot be used, otherwise 1. Images of
    weight 0 are zeros.

    Attributes:
        train: `f(first_step, context=None)` returns the training batches from
            that step on. `context` is the `tf.distribute.InputContext` passed
            by `strategy.distribute_datasets_from_function`. With a context, the
            dataset yields the per-replica batches of that input pipeline, in
            order; together they contain the examples of the global batches.
        evaluation: `f(context=None, split="evaluation")` returns evaluation
            batches that contain every example of the split once.
        training_sample: `f(num_examples)` returns evaluation batches of that
            many training examples, at most all, spread evenly over the split.
        num_train: Number of training examples.
        num_eval: Number of evaluation examples.
        num_classes: Number of classes.
        image_shape: `(size, size, channels)`.
        steps_per_epoch: Number of batches per epoch.
        num_steps: Number of steps of the whole training.
        num_epochs: Number of epochs, including a partial last epoch.
        num_eval_batches: Number of global batches per evaluation.
        eval_batch_size: Global batch size of evaluation.
        global_batch_size: Global batch size of training.
        source: The dataset as opened by the task.
        bad_images: `BadImages` that collects the images that cannot be used.
    """

    train: Callable
    evaluation: Callable
    training_sample: Callable
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
class ExampleReader:
    """Reads examples `(inputs, targets, weight)` in a graph.

    Attributes:
        read: `f(split, index, seed)` returns the example `index` of a split.
            `index` is an int64 tensor, `seed` an int64 tensor `(2,)` that
            determines every random choice.
        padding: `f()` returns zeros of weight 0 with the same shapes.
    """

    read: Callable
    padding: Callable


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Examples of each global batch that one input pipeline reads.

    Attributes:
        first: Position of the shard's first example in the global batch.
        size: Number of examples in the shard.
        replica_batch_size: Number of examples per replica.
        pipeline: Index of the input pipeline.
    """

    first: int
    size: int
    replica_batch_size: int
    pipeline: int


def make_data(config, task):
    """Opens the dataset of a config and returns its `Data`.

    Args:
        config: Config of the run.
        task: `Task` of the run.

    Raises:
        RecipeError: If the dataset cannot be opened or does not fill a batch.
    """
    source = task.open_source(config)
    bad_images = BadImages(config.dataset, config.on_bad_image)
    num_train = source.train.num_examples
    num_eval = source.evaluation.num_examples
    steps_per_epoch = _num_steps_per_epoch(config, num_train)
    num_steps = config.train_steps
    if num_steps is None:
        num_steps = max(round(config.train_epochs * steps_per_epoch), 1)
    eval_batch_size = config.eval_batch_size or config.global_batch_size

    def train(first_step, context=None):
        shard = _make_shard(config.global_batch_size, context)
        reader = task.training_examples(config, source, bad_images)
        read = _read_shuffled(reader, source.train, config, steps_per_epoch)
        mix = task.batch_mixer(config, source, shard.pipeline)
        return _train_batches(read, mix, (first_step, num_steps), shard)

    def evaluation(context=None, split="evaluation"):
        reader = task.evaluation_examples(config, source, bad_images)
        return _eval_batches(
            reader, getattr(source, split), eval_batch_size, context
        )

    def training_sample(num_examples):
        reader = task.evaluation_examples(config, source, bad_images)
        return _eval_batches(
            reader, source.train, eval_batch_size, None, num_examples
        )

    return Data(
        train=train,
        evaluation=evaluation,
        training_sample=training_sample,
        num_train=num_train,
        num_eval=num_eval,
        num_classes=source.num_classes,
        image_shape=(config.image_size, config.image_size, source.num_channels),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        num_epochs=-(-num_steps // steps_per_epoch),
        num_eval_batches=-(-num_eval // eval_batch_size),
        eval_batch_size=eval_batch_size,
        global_batch_size=config.global_batch_size,
        source=source,
        bad_images=bad_images,
    )


def make_prediction_data(config, source, reader, bad_images, batch_size):
    """Returns the `Data` of a run that predicts images without labels.

    Args:
        config: Config of the run.
        source: Dataset whose evaluation examples are predicted.
        reader: `ExampleReader` of these examples.
        bad_images: `BadImages` of the run.
        batch_size: Global batch size.
    """
    num_examples = source.evaluation.num_examples

    def evaluation(context=None):
        return _eval_batches(reader, source.evaluation, batch_size, context)

    return Data(
        train=None,
        evaluation=evaluation,
        training_sample=None,
        num_train=0,
        num_eval=num_examples,
        num_classes=source.num_classes,
        image_shape=(config.image_size, config.image_size, source.num_channels),
        steps_per_epoch=1,
        num_steps=1,
        num_epochs=1,
        num_eval_batches=-(-num_examples // batch_size),
        eval_batch_size=batch_size,
        global_batch_size=batch_size,
        source=source,
        bad_images=bad_images,
    )


def measure_rate(data):
    """Measures the images per second of the training input alone."""
    # Repeats the batches, because a short training may end too early.
    batches = iter(data.train(0).repeat())
    next(batches)
    num_batches, start = 0, time.perf_counter()
    for _ in batches:
        num_batches += 1
        if time.perf_counter() - start > MEASURED_SECONDS:
            break
    elapsed = time.perf_counter() - start
    return num_batches * data.global_batch_size / elapsed


def shuffled_index(position, num_examples, seed, epoch):
    """Returns the index of the example at a position of a shuffled epoch.

    Evaluates one element of a permutation of all examples. The permutation is
    a function of seed and epoch, so there is no shuffle buffer to fill. All
    arguments are integers or int64 tensors.
    """
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    last = tf.constant(num_examples - 1, tf.int64)
    return tf.random.experimental.index_shuffle(position, key, last)


def without_autotune(dataset):
    """Returns the dataset with TensorFlow's autotuner turned off.

    An iterator waits for its autotune thread when it ends. The thread can miss
    the notification and sleep for up to a minute, after every evaluation and at
    the end of a run (seen with TensorFlow 2.21). Without autotuning, a map uses
    as many threads as there are cores, up to 16.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _num_steps_per_epoch(config, num_train):
    num_steps = num_train // config.global_batch_size
    if not config.drop_remainder:
        num_steps = -(-num_train // config.global_batch_size)
    if num_steps == 0:
        raise RecipeError(
            f"{config.dataset} has {num_train} training images, fewer than one "
            "batch. Reduce --global_batch_size or pass --nodrop_remainder to "
            "pad the batch. Received: "
            f"global_batch_size={config.global_batch_size}"
        )
    return num_steps


def _make_shard(batch_size, context):
    if context is None:
        return _Shard(0, batch_size, batch_size, 0)
    size = batch_size // context.num_input_pipelines
    return _Shard(
        first=context.input_pipeline_id * size,
        size=size,
        replica_batch_size=context.get_per_replica_batch_size(batch_size),
        pipeline=context.input_pipeline_id,
    )


def _read_shuffled(reader, split, config, steps_per_epoch):
    """Returns `f(step, i)`, which reads example `i` of a training batch."""

    def read(step, i):
        epoch = step // steps_per_epoch
        position = step % steps_per_epoch * config.global_batch_size + i
        seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])
        seed = tf.random.fold_in(seed, position)

        def read_example():
            index = shuffled_index(
                position, split.num_examples, config.seed, epoch
            )
            return reader.read(split, index, seed)

        return tf.cond(
            position < split.num_examples, read_example, reader.padding
        )

    return read


def _read_in_order(reader, split, batch_size, num_examples):
    """Returns `f(step, i)`, which reads example `i` of an evaluation batch."""
    seed = tf.zeros(2, tf.int64)

    def read(step, i):
        position = step * batch_size + i
        index = position * split.num_examples // num_examples
        return tf.cond(
            position < num_examples,
            lambda: reader.read(split, index, seed),
            reader.padding,
        )

    return read


def _train_batches(read, mix, steps, shard):
    examples = _read_examples(read, steps, shard)
    if mix is None:
        batches = examples.batch(shard.replica_batch_size, drop_remainder=True)
    else:
        batches = examples.batch(shard.size, drop_remainder=True)
        batches = _map(batches.enumerate(steps[0]), mix).rebatch(
            shard.replica_batch_size, drop_remainder=True
        )
    return without_autotune(batches.prefetch(tf.data.AUTOTUNE))


def _eval_batches(reader, split, batch_size, context, num_examples=None):
    """Returns batches of all examples, or of some that are spread evenly."""
    shard = _make_shard(batch_size, context)
    num_examples = min(num_examples or split.num_examples, split.num_examples)
    num_batches = -(-num_examples // batch_size)
    read = _read_in_order(reader, split, batch_size, num_examples)
    examples = _read_examples(read, (0, num_batches), shard)
    batches = examples.batch(shard.replica_batch_size, drop_remainder=True)
    return without_autotune(batches.prefetch(tf.data.AUTOTUNE))


def _read_examples(read, steps, shard):
    """Reads a shard of the global batches from `steps[0]` to `steps[1]`."""
    first, end = (step * shard.size for step in steps)

    def read_element(n):
        return read(n // shard.size, shard.first + n % shard.size)

    return _map(tf.data.Dataset.range(first, end), read_element)


def _map(dataset, function):
    # Nothing here needs AutoGraph, which converts every function it meets.
    return dataset.map(
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
