"""Small TFDS datasets are decoded once and kept in memory."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from recipes.classification import datasets
from recipes.data import input_pipeline
from recipes.data import tfds_reader
from recipes.errors import RecipeError
from tests import tfds_archives
from tests.recipes import tfds_sets
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

NUM_TRAIN, NUM_EVAL = 20, 7


def encode_image(i, kind, shape):
    """Returns the bytes of an image file."""
    height, width, num_channels = shape
    if kind == "jpeg":
        return tfds_archives.jpeg(i % 4, i, height, width)
    noise = np.random.default_rng(i).integers(0, 256, shape, np.uint8)
    pixels = noise[..., 0] if num_channels == 1 else noise
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_dataset(root, kind="png", shape=(16, 16, 3), **changed):
    """Writes a dataset of images; `at_<index>` replaces one of them."""
    images = [encode_image(i, kind, shape) for i in range(NUM_TRAIN + NUM_EVAL)]
    for number, content in changed.items():
        images[int(number.removeprefix("at_"))] = content
    return tfds_sets.write(root, images, NUM_EVAL, shape=shape)


def make_dataset_config(root, **flags):
    return make_config(
        **{
            "dataset": tfds_sets.NAME,
            "data_dir": str(root),
            "global_batch_size": 4,
            "image_size": 16,
            "train_steps": 12,
            **flags,
        }
    )


def read_batches(config):
    return list_batches(input_pipeline.make_data(config, TASK))


def list_batches(made):
    return [
        [column.numpy() for column in batch]
        for dataset in (made.train(0), made.evaluation())
        for batch in dataset
    ]


def is_in_memory(config):
    source = datasets.open_source(config)
    found = {
        split.read(tf.constant(0, tf.int64))[0].dtype
        for split in (source.train, source.evaluation)
    }
    (dtype,) = found
    return {tf.uint8: True, tf.string: False}[dtype]


def read_in_both_ways(config, monkeypatch):
    """Returns the batches with and without decoded images in memory."""
    kept = read_batches(config)
    with monkeypatch.context() as patch:
        patch.setattr(tfds_reader, "MAX_BYTES_IN_MEMORY", 0)
        assert not is_in_memory(config)
        return kept, read_batches(config)


@pytest.mark.parametrize(
    ("kind", "shape", "flags"),
    [
        ("png", (16, 16, 3), {}),
        ("png", (28, 28, 1), {"augmentation": "crop"}),
        ("jpeg", (16, 24, 3), {"augmentation": "none"}),
    ],
)
def test_decoded_images_equal_images_read_one_by_one(
    tmp_path, monkeypatch, kind, shape, flags
):
    write_dataset(tmp_path, kind, shape)
    config = make_dataset_config(tmp_path, **flags)
    assert is_in_memory(config)
    kept, read = read_in_both_ways(config, monkeypatch)
    assert len(kept) == 12 + 2
    for ours, theirs in zip(kept, read, strict=True):
        for column, other in zip(ours, theirs, strict=True):
            assert column.dtype == other.dtype
            np.testing.assert_array_equal(column, other)


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64, 3)])
def test_cropped_images_are_not_kept_in_memory(tmp_path, shape):
    # A decoded part of a JPEG lacks the neighboring pixels that colors are
    # interpolated from.
    write_dataset(tmp_path, "jpeg", shape)
    flags = {"augmentation": "inception"} if shape[0] < 64 else {}
    assert not is_in_memory(make_dataset_config(tmp_path, **flags))


def test_decoded_examples_keep_the_order_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_reader, "DECODE_BATCH", 3)
    write_dataset(tmp_path)
    source = datasets.open_source(make_dataset_config(tmp_path))
    for split, num in (
        (source.train, NUM_TRAIN),
        (source.evaluation, NUM_EVAL),
    ):
        assert split.num_examples == num
        labels = []
        for i in range(num):
            pixels, label = split.read(tf.constant(i, tf.int64))
            labels.append(int(label))
            # The label is the index of the image.
            encoded = encode_image(int(label), "png", (16, 16, 3))
            expected = np.asarray(PIL.Image.open(io.BytesIO(encoded)))
            np.testing.assert_array_equal(pixels, expected)
        assert len(set(labels)) == num


@pytest.mark.parametrize(
    ("shape", "num_examples", "expected"),
    [
        ((32, 32, 3), 60_000, True),
        ((28, 28, 1), 70_000, True),
        ((64, 64, 3), 2**28 // (64 * 64 * 3), True),
        ((64, 64, 3), 2**28 // (64 * 64 * 3) + 1, False),
        ((None, None, 3), 1, False),
        ((32, 32, None), 1, False),
    ],
)
def test_fits_in_memory(shape, num_examples, expected):
    assert tfds_reader.fits_in_memory(shape, num_examples) is expected


def test_images_of_unknown_shape_are_not_kept_in_memory(tmp_path):
    images = [encode_image(i, "png", (16, 16, 3)) for i in range(12)]
    tfds_sets.write(tmp_path, images, num_eval=4)
    assert not is_in_memory(make_dataset_config(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "Unknown image file format"),
        (encode_image(0, "png", (16, 16, 3))[:60], "Invalid PNG data"),
    ],
    ids=["text", "torn"],
)
@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_bad_image_of_a_small_dataset_is_reported(
    tmp_path, content, reason, on_bad_image
):
    folder = write_dataset(tmp_path, at_4=content)
    config = make_dataset_config(
        tmp_path, on_bad_image=on_bad_image, train_steps=5
    )
    # The fifth image is the second of the second file of three.
    file = folder / f"{tfds_sets.NAME}-train.tfrecord-00001-of-00003"
    name = f"of train, record 1 of {file}"
    made = input_pipeline.make_data(config, TASK)
    if on_bad_image == "skip":
        weights = [batch[2] for batch in list_batches(made)[:5]]
        assert np.sum(weights) == NUM_TRAIN - 1
        (found,) = made.bad_images.names()
        assert name in found
    else:
        with pytest.raises(RecipeError, match=f"{reason}.*{name}"):
            with made.bad_images.explain_errors():
                list_batches(made)


def test_images_of_different_shapes_are_not_kept_in_memory(tmp_path):
    write_dataset(tmp_path, at_4=encode_image(4, "png", (8, 24, 3)))
    config = make_dataset_config(tmp_path)
    source = datasets.open_source(config)
    assert source.train.read(tf.constant(0, tf.int64))[0].dtype == tf.string
    assert len(read_batches(config)) == 12 + 2
