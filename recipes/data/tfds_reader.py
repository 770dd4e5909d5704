"""TensorFlow Datasets, every example by its number."""

import difflib
import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.data import tfrecord_index
from recipes.errors import RecipeError

EVAL_SPLITS = ("validation", "test")
# Some datasets of TFDS for error messages.
POPULAR_DATASETS = (
    "imagenet2012",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "mnist",
)
# Smallest height of images that are cropped like ImageNet.
LARGE_IMAGE = 64


def open_classification_builder(builder, config):
    """Opens an image classification dataset of TFDS.

    Args:
        builder: Its builder.
        config: Config of the run.

    Returns:
        Dict of the arguments of a `Source`. Its `train` and `evaluation` are
        dicts of the arguments of a `Split`.

    Raises:
        RecipeError: If the dataset is not an image classification dataset, or
            cannot be prepared.
    """
    prepare_builder(builder)
    features = builder.info.features
    image_key, label_key = _get_image_and_label_keys(
        config.dataset, builder.info
    )
    splits = builder.info.splits
    eval_split = next((split for split in EVAL_SPLITS if split in splits), "")
    if "train" not in splits or not eval_split:
        raise RecipeError(
            f"--dataset={config.dataset} must have a train split and a "
            f"validation or test split. Its splits: {', '.join(splits)}."
        )

    def parse(record):
        skip = {image_key: tfds.decode.SkipDecoding()}
        example = features.deserialize_example(record, decoders=skip)
        return example[image_key], example[label_key]

    shape = features[image_key].shape
    is_large = shape[0] is None or shape[0] >= LARGE_IMAGE
    suited = "inception" if is_large else "crop_flip"
    infos = splits["train"], splits[eval_split]
    is_cropped = "inception" in (config.augmentation, suited)
    is_in_memory = fits_in_memory(
        shape, sum(info.num_examples for info in infos)
    )
    # Decoding part of a JPEG gives other pixels at the border of that part than
    # decoding all of it.
    is_in_memory = is_in_memory and not is_cropped
    train, evaluation = (
        _split(info, parse, shape if is_in_memory else None) for info in infos
    )
    return {
        "class_names": tuple(features[label_key].names),
        "num_channels": shape[-1] or 3,
        "train": train,
        "evaluation": evaluation,
        "augmentation": suited,
    }


def index_split(info):
    """Indexes the records of a prepared split.

    Args:
        info: `tfds.core.SplitInfo`.

    Returns:
        The ordered paths of its files, their `RecordIndex`, and `f(index)`,
        which describes an example for error messages.
    """
    files = [pathlib.Path(path) for path in info.filepaths]
    cache = files[0].parent / f"{info.name}.record_index.npz"
    index = tfrecord_index.load_index(files, info.shard_lengths, cache)

    def name(i):
        file, record = index.place(i)
        return f"example {i} of {info.name}, record {record} of {file}"

    return files, index, name


def _split(info, parse, decoded_shape):
    """Returns the arguments of a `Split`.

    Args:
        info: `tfds.core.SplitInfo`.
        parse: `f(record)` returns an encoded image and its label.
        decoded_shape: Shape of the images if they are decoded and kept in
            memory, otherwise None.
    """
    files, index, name = index_split(info)

    def read(i):
        return parse(index.read(i))

    decoded = decoded_shape and load_decoded(files, parse, decoded_shape)
    if decoded:
        images, labels = decoded

        def read(i):
            return tf.gather(images, i), tf.gather(labels, i)

    return {"num_examples": len(index), "read": read, "name": name}


def _check_format(builder):
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise RecipeError(
            f"{builder.info.full_name} in {builder.data_dir} is prepared as "
            f"{file_format}, but only TFRecord files are supported. Prepare it "
            "again with `tfds build --file_format=tfrecord`, or pass another "
            "--data_dir."
        )


def find_builder(config, built_in, popular):
    """Returns the builder of the TFDS dataset `config.dataset`.

    Args:
        config: Config with `dataset` and `data_dir`.
        built_in: Names of the program's datasets that are not from TFDS.
        popular: Names of some TFDS datasets, for error messages.

    Raises:
        RecipeError: If the dataset does not exist.
    """
    try:
        return tfds.builder(config.dataset, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        names = [*built_in, *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(config.dataset, names, 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise RecipeError(
            f"unknown dataset {config.dataset!r}.{hint} Available are "
            f"{', '.join(built_in)} and {len(names) - len(built_in)} TFDS "
            f"datasets such as {', '.join(popular)}."
        ) from None
    # For an unknown version, TFDS raises an AssertionError.
    except (ValueError, OSError, AssertionError) as error:
        raise RecipeError(
            f"--dataset={config.dataset}: {_builder_error(config, error)}"
        ) from error


def _builder_error(config, error):
    name, _, builder_config = config.dataset.partition(":")[0].partition("/")
    names = [each.name for each in tfds.builder_cls(name).BUILDER_CONFIGS]
    if builder_config and builder_config not in names:
        configs = ", ".join(names) or "none"
        return (
            f"{name} has no config {builder_config!r}. Its configs: {configs}."
        )
    return _first_line(error).rpartition('}": ')[2]


def prepare_builder(builder):
    """Downloads and prepares the files of a builder if needed.

    Raises:
        RecipeError: If the files cannot be prepared or read.
    """
    if not builder.is_prepared():
        _prepare(builder)
    _check_format(builder)


def _prepare(builder):
    downloads = _data_dir(builder) / "downloads"
    manual = downloads / "manual"
    settings = tfds.download.DownloadConfig(
        manual_dir=manual, try_download_gcs=False
    )
    try:
        builder.download_and_prepare(
            download_dir=downloads, download_config=settings
        )
    except Exception as error:
        raise RecipeError(_prepare_error(builder, manual, error)) from error


def _prepare_error(builder, manual, error):
    if builder.name == "imagenet2012":
        archives = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        archives = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    else:
        return (
            f"{builder.name} is not in {_data_dir(builder)} and cannot be "
            f"downloaded: {type(error).__name__}: {_first_line(error)}"
            f"{_manual_download_hint(builder, manual)}"
        )
    if isinstance(error, AssertionError):
        return (
            f"{builder.name} is prepared from archives that you must download. "
            f"Put them into {manual}: {archives}"
        )
    return (
        f"{builder.name} cannot be prepared from {manual}: "
        f"{type(error).__name__}: {_first_line(error)}"
    )


def _data_dir(builder):
    """Returns the folder that holds all datasets of TFDS."""
    num_levels = len(builder.info.full_name.split("/"))
    return pathlib.Path(builder.data_dir).parents[num_levels - 1]


def _manual_download_hint(builder, manual):
    """Describes where to put COCO's archives; empty for other datasets."""
    if builder.name != "coco":
        return ""
    archives = dict.fromkeys(
        f"{name}.zip"
        for split in builder.builder_config.splits
        for name in (split.images, split.annotations)
    )
    return (
        f" You can also put its archives into {manual}: {', '.join(archives)}"
    )


def _get_image_and_label_keys(dataset, info):
    """Returns the feature names of the image and its label."""
    keys = info.supervised_keys or ()
    features = [info.features[key] for key in keys[:2]]
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    if len(features) != 2 or not all(map(isinstance, features, kinds)):
        raise RecipeError(
            f"--dataset={dataset} is not an image classification dataset. "
            f"Its features: {', '.join(info.features)}."
        )
    return keys[0], keys[1]


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Limit for the pixels of all examples; CIFAR-10 has 184 MB.
MAX_BYTES_IN_MEMORY = 2**28
DECODE_BATCH = 1024


def fits_in_memory(shape, num_examples):
    """Returns True if uint8 images of a shape are small enough for memory."""
    if None in shape:
        return False
    height, width, num_channels = shape
    return height * width * num_channels * num_examples <= MAX_BYTES_IN_MEMORY


def load_decoded(files, parse, shape):
    """Decodes small images once, as reading them takes longer than training.

    Args:
        files: Ordered paths of the TFRecord files.
        parse: `f(record)` returns an encoded image and its label.
        shape: `(height, width, channels)` of every image.

    Returns:
        Images uint8 `(n, height, width, channels)` and labels int64 `(n,)`, or
        None if an image cannot be decoded. Reading the images one by one then
        reports its name.
    """

    def decode(record):
        image, label = parse(record)
        pixels = tf.io.decode_image(image, shape[-1], expand_animations=False)
        return tf.ensure_shape(pixels, shape), label

    records = tf.data.TFRecordDataset([str(file) for file in files])
    batches = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(
        DECODE_BATCH
    )
    try:
        batches = list(batches)
    except tf.errors.OpError:
        return None
    images, labels = zip(*batches, strict=True)
    return tf.concat(images, axis=0), tf.concat(labels, axis=0)
