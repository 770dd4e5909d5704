import os
import time

import numpy as np
import pytest
import tensorflow as tf

from recipes.classification import datasets
from recipes.data import input_pipeline
from recipes.data import tfrecord_index
from recipes.errors import RecipeError
from tests.recipes import tfds_sets
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config


def write_files(folder, counts, seed=0):
    """Writes files with records of different lengths."""
    generator = np.random.default_rng(seed)
    files = []
    for i, count in enumerate(counts):
        files.append(folder / f"part{i}")
        with tf.io.TFRecordWriter(str(files[-1])) as writer:
            for length in generator.integers(0, 300, count):
                writer.write(generator.bytes(length))
    return files


def read_records(index):
    rows = tf.data.Dataset.range(len(index)).map(index.read)
    return list(rows.as_numpy_iterator())


def test_records_equal_tensorflow_reading_in_order(tmp_path):
    files = write_files(tmp_path, (5, 0, 7, 1))
    index = tfrecord_index.load_index(
        files, (5, 0, 7, 1), tmp_path / "index.npz"
    )
    expected = tf.data.TFRecordDataset([str(file) for file in files])
    assert read_records(index) == list(expected.as_numpy_iterator())
    assert index.place(0) == (str(files[0]), 0)
    assert index.place(5) == (str(files[2]), 0)
    assert index.place(12) == (str(files[3]), 0)


def test_index_is_built_once(tmp_path, monkeypatch):
    files = write_files(tmp_path, (5, 7))
    cache = tmp_path / "index.npz"
    first = read_records(tfrecord_index.load_index(files, (5, 7), cache))
    monkeypatch.setattr(tfrecord_index, "read_offsets", None)
    assert (
        read_records(tfrecord_index.load_index(files, (5, 7), cache)) == first
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.npz",
        "part0",
        "part1",
    ]


@pytest.mark.parametrize("counts", [(5, 7), (6, 6)])
def test_index_of_other_files_is_not_used(tmp_path, counts):
    cache = tmp_path / "index.npz"
    tfrecord_index.load_index(write_files(tmp_path, (5, 7)), (5, 7), cache)
    files = write_files(tmp_path, counts, seed=1)
    index = tfrecord_index.load_index(files, counts, cache)
    expected = tf.data.TFRecordDataset([str(file) for file in files])
    assert read_records(index) == list(expected.as_numpy_iterator())


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04cut"])
def test_damaged_index_is_rebuilt(tmp_path, content):
    files = write_files(tmp_path, (5,))
    (tmp_path / "index.npz").write_bytes(content)
    index = tfrecord_index.load_index(files, (5,), tmp_path / "index.npz")
    assert len(read_records(index)) == 5


def test_index_works_without_a_writable_folder(tmp_path):
    files = write_files(tmp_path, (5,))
    index = tfrecord_index.load_index(
        files, (5,), tmp_path / "nowhere" / "index.npz"
    )
    assert len(read_records(index)) == 5


@pytest.mark.parametrize("cut", [1, 3, 12, 17])
def test_truncated_file_raises_an_error(tmp_path, cut):
    (file,) = write_files(tmp_path, (5,))
    os.truncate(file, file.stat().st_size - cut)
    with pytest.raises(RecipeError, match=f"{file} is damaged: record"):
        tfrecord_index.load_index([file], (5,), tmp_path / "index.npz")


def test_unexpected_number_of_records_raises_an_error(tmp_path):
    files = write_files(tmp_path, (5,))
    with pytest.raises(RecipeError, match="has 5 records, but .* says 6"):
        tfrecord_index.load_index(files, (6,), tmp_path / "index.npz")


def test_missing_file_raises_an_error(tmp_path):
    with pytest.raises(RecipeError, match="gone cannot be read: No such file"):
        tfrecord_index.load_index(
            [tmp_path / "gone"], (1,), tmp_path / "index.npz"
        )


def test_damaged_record_raises_an_error(tmp_path):
    (file,) = write_files(tmp_path, (3,))
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(bytes(content))
    index = tfrecord_index.load_index([file], (3,), tmp_path / "index.npz")
    with pytest.raises(tf.errors.DataLossError):
        read_records(index)


def test_tfds_examples_are_read_by_index(tmp_path):
    images = tfds_sets.jpegs(11)
    folder = tfds_sets.write(tmp_path, images, num_eval=4)
    config = make_config(dataset=tfds_sets.NAME, data_dir=str(tmp_path))
    source = datasets.open_source(config)
    train, evaluation = source.train, source.evaluation
    assert (train.num_examples, evaluation.num_examples) == (7, 4)
    # Three files hold every third example.
    for i, label in enumerate((0, 3, 6, 1, 4, 2, 5)):
        image, read_label = train.read(tf.constant(i, tf.int64))
        assert (int(read_label), image.numpy()) == (label, images[label])
    file = folder / f"{tfds_sets.NAME}-train.tfrecord-00001-of-00003"
    assert train.name(4) == f"example 4 of train, record 1 of {file}"
    assert int(evaluation.read(tf.constant(3, tf.int64))[1]) == 10


def test_other_tfds_file_format_raises_an_error(tmp_path):
    images = tfds_sets.jpegs(3)
    info = tfds_sets.write(tmp_path, images, num_eval=1) / "dataset_info.json"
    info.write_text(info.read_text().replace("tfrecord", "array_record"))
    config = make_config(dataset=tfds_sets.NAME, data_dir=str(tmp_path))
    with pytest.raises(RecipeError, match="array_record.*--file_format=tfre"):
        datasets.open_source(config)


@pytest.mark.long
def test_dataset_of_imagenet_size_resumes_within_a_minute(tmp_path):
    num_files, num_records = 64, 20_000
    folder = tmp_path / tfds_sets.NAME / "1.0.0"
    folder.mkdir(parents=True)
    image = tf.io.encode_png(tf.zeros((4, 4, 3), tf.uint8)).numpy()
    for i in range(num_files):
        place = f"{i:05d}-of-{num_files:05d}"
        path = folder / f"{tfds_sets.NAME}-train.tfrecord-{place}"
        record = tfds_sets.record(image, i)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(num_records):
                writer.write(record)
    path = folder / f"{tfds_sets.NAME}-validation.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)
    shards = {"train": [num_records] * num_files, "validation": [1]}
    tfds_sets.describe(folder, shards)

    config = make_config(
        dataset=tfds_sets.NAME,
        data_dir=str(tmp_path),
        global_batch_size=256,
        train_steps=450_000,
    )
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        made = input_pipeline.make_data(config, TASK)
        assert made.num_train == 1_280_000
        _, labels, _ = next(iter(made.train(449_990)))
        seconds.append(time.perf_counter() - start)
        assert len(set(labels.numpy().tolist())) > 50
    print(f"first batch of step 449,990 after {seconds} s: built, then kept")
    assert seconds[0] < 60
    assert seconds[1] < 20
