"""A small set in memory: what comes of it is what its files hold."""

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


def image(i, kind, shape):
    """A file of an image, in bytes."""
    height, width, num_channels = shape
    if kind == "jpeg":
        return tfds_archives.jpeg(i % 4, i, height, width)
    noise = np.random.default_rng(i).integers(0, 256, shape, np.uint8)
    pixels = noise[..., 0] if num_channels == 1 else noise
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(root, kind="png", shape=(16, 16, 3), **changed):
    """A set of such images, but for those that are given by number."""
    images = [image(i, kind, shape) for i in range(NUM_TRAIN + NUM_EVAL)]
    for number, content in changed.items():
        images[int(number.removeprefix("at_"))] = content
    return tfds_sets.write(root, images, NUM_EVAL, shape=shape)


def config_of(root, **flags):
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


def batches(config):
    return batches_of(input_pipeline.make_data(config, TASK))


def batches_of(made):
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


def both(config, monkeypatch):
    """The batches out of memory, and those that are read by number."""
    kept = batches(config)
    with monkeypatch.context() as patch:
        patch.setattr(tfds_reader, "MAX_BYTES_IN_MEMORY", 0)
        assert not is_in_memory(config)
        return kept, batches(config)


@pytest.mark.parametrize(
    ("kind", "shape", "flags"),
    [
        ("png", (16, 16, 3), {}),
        ("png", (28, 28, 1), {"augmentation": "crop"}),
        ("jpeg", (16, 24, 3), {"augmentation": "none"}),
    ],
)
def test_bit_for_bit_what_is_read_by_number(
    tmp_path, monkeypatch, kind, shape, flags
):
    write(tmp_path, kind, shape)
    config = config_of(tmp_path, **flags)
    assert is_in_memory(config)
    kept, read = both(config, monkeypatch)
    assert len(kept) == 12 + 2
    for ours, theirs in zip(kept, read, strict=True):
        for column, other in zip(ours, theirs, strict=True):
            assert column.dtype == other.dtype
            np.testing.assert_array_equal(column, other)


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64, 3)])
def test_where_parts_are_taken_nothing_is_kept(tmp_path, shape):
    # Part of a JPEG is decoded without the pixels beside it, which its colours
    # are interpolated from.
    write(tmp_path, "jpeg", shape)
    flags = {"augmentation": "inception"} if shape[0] < 64 else {}
    assert not is_in_memory(config_of(tmp_path, **flags))


def test_examples_have_the_numbers_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_reader, "DECODE_BATCH", 3)
    write(tmp_path)
    source = datasets.open_source(config_of(tmp_path))
    for split, num in (
        (source.train, NUM_TRAIN),
        (source.evaluation, NUM_EVAL),
    ):
        assert split.num_examples == num
        labels = []
        for i in range(num):
            pixels, label = split.read(tf.constant(i, tf.int64))
            labels.append(int(label))
            # The label is the number of the picture.
            encoded = image(int(label), "png", (16, 16, 3))
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
def test_what_fits_into_memory(shape, num_examples, expected):
    assert tfds_reader.fits_in_memory(shape, num_examples) is expected


def test_images_of_any_shape_are_read_by_number(tmp_path):
    images = [image(i, "png", (16, 16, 3)) for i in range(12)]
    tfds_sets.write(tmp_path, images, num_eval=4)
    assert not is_in_memory(config_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "Unknown image file format"),
        (image(0, "png", (16, 16, 3))[:60], "Invalid PNG data"),
    ],
    ids=["text", "torn"],
)
@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_a_bad_image_is_named_all_the_same(
    tmp_path, content, reason, on_bad_image
):
    folder = write(tmp_path, at_4=content)
    config = config_of(tmp_path, on_bad_image=on_bad_image, train_steps=5)
    # The fifth image is the second of the second file of three.
    file = folder / f"{tfds_sets.NAME}-train.tfrecord-00001-of-00003"
    name = f"of train, record 1 of {file}"
    made = input_pipeline.make_data(config, TASK)
    if on_bad_image == "skip":
        weights = [batch[2] for batch in batches_of(made)[:5]]
        assert np.sum(weights) == NUM_TRAIN - 1
        (found,) = made.bad_images.names()
        assert name in found
    else:
        with pytest.raises(RecipeError, match=f"{reason}.*{name}"):
            with made.bad_images.explain_errors():
                batches_of(made)


def test_an_image_of_another_shape_is_read_by_number(tmp_path):
    write(tmp_path, at_4=image(4, "png", (8, 24, 3)))
    config = config_of(tmp_path)
    source = datasets.open_source(config)
    assert source.train.read(tf.constant(0, tf.int64))[0].dtype == tf.string
    assert len(batches(config)) == 12 + 2
