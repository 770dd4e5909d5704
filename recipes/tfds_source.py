"""TensorFlow Datasets, read from their files in an order set by a seed."""

import difflib
import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.errors import RecipeError

EVAL_SPLITS = ("validation", "test")
# Examples that wait for their turn, still encoded: about 0.9 GB of ImageNet.
SHUFFLE_BUFFER = 8192
# Files that are read at once.
OPEN_FILES = 16
# From this height on, images are cropped as ImageNet's are.
LARGE_IMAGE = 64


def open_builder(config):
    """What `Source` needs to know of the TFDS set `config.dataset`.

    Raises:
        RecipeError: if there is no such set, it is no image classification, or
            it is not prepared and cannot be.
    """
    builder = _find(config)
    _prepare(builder)
    features = builder.info.features
    image_key, label_key = _keys(config.dataset, builder.info)
    splits = builder.info.splits
    eval_split = next((split for split in EVAL_SPLITS if split in splits), "")
    if "train" not in splits or not eval_split:
        raise RecipeError(
            f"--dataset={config.dataset} must have a train split and a "
            f"validation or test split. It has: {', '.join(splits)}."
        )

    def parse(record):
        skip = {image_key: tfds.decode.SkipDecoding()}
        example = features.deserialize_example(record, decoders=skip)
        return example[image_key], example[label_key]

    def train(seed, epoch):
        return _shuffled_records(builder, seed, epoch).map(
            parse, num_parallel_calls=tf.data.AUTOTUNE
        )

    def evaluation():
        files = _files(builder, eval_split)
        return tf.data.TFRecordDataset(files).map(
            parse, num_parallel_calls=tf.data.AUTOTUNE
        )

    height, _, num_channels = features[image_key].shape
    is_large = height is None or height >= LARGE_IMAGE
    return {
        "num_classes": features[label_key].num_classes,
        "num_channels": num_channels or 3,
        "num_train": splits["train"].num_examples,
        "num_eval": splits[eval_split].num_examples,
        "train": train,
        "evaluation": evaluation,
        "augmentation": "inception" if is_large else "crop_flip",
    }


def _shuffled_records(builder, seed, epoch):
    """Records in the order of one epoch: files first, then a buffer.

    To be called inside a tf.data function, where `epoch` is a tensor.
    """
    # The seed of this function's graph, which TensorFlow mixes into every other
    # seed; at 0 it would compare the key below, a tensor, with a number.
    tf.random.set_seed(1)
    files = _files(builder, "train")
    key = tf.cast(seed, tf.int64) + 1_000_003 * tf.cast(epoch, tf.int64)
    return (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files), seed=key, reshuffle_each_iteration=False)
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=OPEN_FILES,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .shuffle(SHUFFLE_BUFFER, seed=key + 1, reshuffle_each_iteration=False)
    )


def _files(builder, split):
    return [str(path) for path in builder.info.splits[split].filepaths]


def _find(config):
    try:
        return tfds.builder(config.dataset, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        own = ["digits", "fake", "folder:PATH"]
        known = own + tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(config.dataset, known, 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise RecipeError(
            f"unknown dataset {config.dataset!r}.{hint} There are: "
            f"{', '.join(own)}, and {len(known) - len(own)} of TFDS, among "
            "them imagenet2012, cifar10, cifar100, fashion_mnist, mnist."
        ) from None
    except (ValueError, OSError) as error:
        raise RecipeError(
            f"--dataset={config.dataset}: {_first_line(error)}"
        ) from error


def _prepare(builder):
    if builder.is_prepared():
        return
    downloads = pathlib.Path(builder._data_dir_root) / "downloads"
    manual = downloads / "manual"
    settings = tfds.download.DownloadConfig(
        manual_dir=manual, try_download_gcs=False
    )
    try:
        builder.download_and_prepare(
            download_dir=downloads, download_config=settings
        )
    except Exception as error:
        raise RecipeError(_why_not_prepared(builder, manual, error)) from error


def _why_not_prepared(builder, manual, error):
    if builder.name == "imagenet2012":
        wanted = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        wanted = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    else:
        return (
            f"{builder.name} is not in {builder._data_dir_root} and cannot be "
            f"downloaded: {type(error).__name__}: {_first_line(error)}"
        )
    if isinstance(error, AssertionError):
        return (
            f"{builder.name} is made of archives that you download by hand. "
            f"They must lie in {manual}: {wanted}"
        )
    return (
        f"{builder.name} cannot be prepared from {manual}: "
        f"{type(error).__name__}: {_first_line(error)}"
    )


def _keys(dataset, info):
    """The names of the image and of its label."""
    keys = info.supervised_keys or ()
    features = [info.features[key] for key in keys[:2]]
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    if len(features) != 2 or not all(map(isinstance, features, kinds)):
        raise RecipeError(
            f"--dataset={dataset} is no image classification: its features are "
            f"{', '.join(info.features)}."
        )
    return keys[0], keys[1]


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
