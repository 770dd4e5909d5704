"""TensorFlow Datasets, every example by its number."""

import difflib
import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.data import tfrecord_index
from recipes.errors import RecipeError

EVAL_SPLITS = ("validation", "test")
# What the program has besides, and some that it is used with.
BUILT_IN_DATASETS = ("digits", "fake", "folder:PATH")
POPULAR_DATASETS = (
    "imagenet2012",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "mnist",
)
# From this height on, images are cropped as ImageNet's are.
LARGE_IMAGE = 64


def open_classification_builder(config):
    """What `Source` needs to know of the TFDS set `config.dataset`.

    `train` and `evaluation` are the arguments of a `Split`.

    Raises:
        RecipeError: if there is no such set, it is no image classification, or
            it is not prepared and cannot be.
    """
    builder = get_builder(config, BUILT_IN_DATASETS, POPULAR_DATASETS)
    prepare_builder(builder)
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

    shape = features[image_key].shape
    is_large = shape[0] is None or shape[0] >= LARGE_IMAGE
    suited = "inception" if is_large else "crop_flip"
    infos = splits["train"], splits[eval_split]
    takes_parts = "inception" in (config.augmentation, suited)
    keeps = fits_in_memory(shape, sum(info.num_examples for info in infos))
    # Part of a JPEG file is not decoded to the bits of the whole.
    keeps = keeps and not takes_parts
    train, evaluation = (
        _split(info, parse, shape if keeps else None) for info in infos
    )
    return {
        "class_names": tuple(features[label_key].names),
        "num_channels": shape[-1] or 3,
        "train": train,
        "evaluation": evaluation,
        "augmentation": suited,
    }


def index_split(info):
    """The records of a prepared split, by their number.

    Args:
        info: `tfds.core.SplitInfo`.

    Returns:
        The paths of its files, in order; their `RecordIndex`; and `f(index)`,
        which tells a person which example that is, and where.
    """
    files = [pathlib.Path(path) for path in info.filepaths]
    cache = files[0].parent / f"{info.name}.record_index.npz"
    index = tfrecord_index.load_index(files, info.shard_lengths, cache)

    def name(i):
        file, record = index.place(i)
        return f"example {i} of {info.name}, record {record} of {file}"

    return files, index, name


def _split(info, parse, kept_shape):
    """The arguments of a `Split`; in memory where its images have a shape."""
    files, index, name = index_split(info)

    def read(i):
        return parse(index.read(i))

    kept = kept_shape and load_decoded(files, parse, kept_shape)
    if kept:
        images, labels = kept

        def read(i):
            return tf.gather(images, i), tf.gather(labels, i)

    return {"num_examples": len(index), "read": read, "name": name}


def _check_format(builder):
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise RecipeError(
            f"{builder.info.full_name} in {builder.data_dir} is prepared as "
            f"{file_format}, but only TFRecord files are read. Prepare it "
            "again with --file_format=tfrecord of `tfds build`, or give "
            "another --data_dir."
        )


def get_builder(config, own, known):
    """The builder of the TFDS set `config.dataset`.

    Args:
        config: Has `dataset` and `data_dir`.
        own: Names of the datasets that the program has besides TFDS'.
        known: Names of some of TFDS' that suit the program.

    Raises:
        RecipeError: if there is no such set.
    """
    try:
        return tfds.builder(config.dataset, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        names = [*own, *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(config.dataset, names, 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise RecipeError(
            f"unknown dataset {config.dataset!r}.{hint} There are: "
            f"{', '.join(own)}, and {len(names) - len(own)} of TFDS, among "
            f"them {', '.join(known)}."
        ) from None
    # Of a version that is not there TFDS says so with an AssertionError.
    except (ValueError, OSError, AssertionError) as error:
        raise RecipeError(
            f"--dataset={config.dataset}: {_why_not_made(config, error)}"
        ) from error


def _why_not_made(config, error):
    name, _, kind = config.dataset.partition(":")[0].partition("/")
    kinds = [each.name for each in tfds.builder_cls(name).BUILDER_CONFIGS]
    if kind and kind not in kinds:
        there = ", ".join(kinds) or "one kind alone, without a name"
        return f"{name} has no {kind!r}. It has: {there}."
    return _first_line(error).rpartition('}": ')[2]


def prepare_builder(builder):
    """Sees to it that the files of a builder are there and can be read.

    Raises:
        RecipeError: if they are not, and cannot be made.
    """
    if not builder.is_prepared():
        _prepare(builder)
    _check_format(builder)


def _prepare(builder):
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
            f"{_by_hand(builder, manual)}"
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


def _by_hand(builder, manual):
    """Where COCO's archives may be put that cannot be downloaded."""
    if builder.name != "coco":
        return ""
    archives = dict.fromkeys(
        f"{name}.zip"
        for split in builder.builder_config.splits
        for name in (split.images, split.annotations)
    )
    return f" TFDS also takes its archives from {manual}: {', '.join(archives)}"


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


# Of pixels, all examples of a set together: CIFAR-10 has 184 MB.
MAX_BYTES_IN_MEMORY = 2**28
DECODE_BATCH = 1024


def fits_in_memory(shape, num_examples):
    """Whether so many uint8 images of that shape are kept in memory."""
    if None in shape:
        return False
    height, width, num_channels = shape
    return height * width * num_channels * num_examples <= MAX_BYTES_IN_MEMORY


def load_decoded(files, parse, shape):
    """Images uint8 `(n, height, width, channels)` and labels int64 `(n,)`.

    Args:
        files: Paths of the TFRecord files, in order.
        parse: `f(record)` gives the bytes of an image and its label.
        shape: `(height, width, channels)` of every image.

    Returns:
        The two arrays, or None if an image cannot be decoded: whoever reads it
        by its number says which one.
    """

    def decode(record):
        image, label = parse(record)
        pixels = tf.io.decode_image(image, shape[-1], expand_animations=False)
        return tf.ensure_shape(pixels, shape), label

    records = tf.data.TFRecordDataset([str(file) for file in files])
    chunks = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(
        DECODE_BATCH
    )
    try:
        parts = list(chunks)
    except tf.errors.OpError:
        return None
    images, labels = zip(*parts, strict=True)
    return tf.concat(images, axis=0), tf.concat(labels, axis=0)
