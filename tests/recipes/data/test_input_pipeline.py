import dataclasses
import time

import numpy as np
import pytest
import tensorflow as tf

from recipes.classification import datasets
from recipes.classification.config import Config
from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.training import distribution
from recipes.training import runner
from recipes.training.compiled_steps import CompiledSteps
from tests import tfds_archives
from tests.recipes import tfds_sets
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

PREPARED = {"image_size": 16, "global_batch_size": 8, "train_steps": 6}
DATASETS = {
    "digits": {"train_steps": 48},
    "fake": {"train_steps": 66, "image_size": 8},
    "folder": PREPARED,
    "tfds": PREPARED,
}


def make_dataset_config(name, root, **flags):
    """Returns a config with more than two epochs of a small dataset."""
    settings = {"dataset": name, **DATASETS[name], **flags}
    if name == "folder":
        settings["dataset"] = f"folder:{root}"
        if not (root / "train").exists():
            tfds_archives.folder(root, num_train=5, num_eval=3)
    if name == "tfds":
        settings.update(dataset=tfds_sets.NAME, data_dir=str(root))
        if not (root / tfds_sets.NAME).exists():
            tfds_sets.write(root, tfds_sets.jpegs(31), num_eval=11)
    return make_config(**settings)


def to_list(dataset):
    return list(dataset.as_numpy_iterator())


def assert_same(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        for column, other_column in zip(batch, other, strict=True):
            np.testing.assert_array_equal(column, other_column)


def join_replicas(make, num_workers, num_replicas):
    """Joins the batches of all replicas to global batches."""
    batches = [
        to_list(
            make(tf.distribute.InputContext(num_workers, worker, num_replicas))
        )
        for worker in range(num_workers)
    ]
    each = num_replicas // num_workers
    return [
        [
            np.concatenate(columns)
            for columns in zip(
                *(b for s in batches for b in s[i : i + each]), strict=True
            )
        ]
        for i in range(0, len(batches[0]), each)
    ]


def test_digits_are_split_without_overlap():
    source = datasets.open_source(make_config())
    splits = source.train, source.evaluation
    assert [split.num_examples for split in splits] == [1437, 360]
    trained, seen = (
        {
            image.tobytes()
            for image, _ in to_list(
                tf.data.Dataset.range(split.num_examples).map(split.read)
            )
        }
        for split in splits
    )
    assert len(seen) == 360
    assert not seen & trained


def test_each_epoch_is_a_different_permutation():
    order = [
        [
            int(input_pipeline.shuffled_index(i, 100, seed, epoch))
            for i in range(100)
        ]
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(indices) == list(range(100)) for indices in order)
    assert order[0] == order[1]
    assert order[0] != order[2] != order[3] != order[0]


def test_batches_follow_the_permutation():
    config = make_config(augmentation="none", train_steps=24)
    read = datasets.open_source(config).train.read
    for step in (0, 21, 23):
        images, labels, weights = next(
            iter(input_pipeline.make_data(config, TASK).train(step))
        )
        # 1437 images are 22 batches of 64.
        epoch, first = divmod(step, 22)
        for row in range(0, 64, 9):
            index = tf.random.experimental.index_shuffle(
                first * 64 + row, (config.seed, epoch), 1436
            )
            image, label = read(index)
            image = image.numpy() / 127.5 - 1
            np.testing.assert_allclose(images[row], image, atol=1e-6)
            assert int(labels[row]) == int(label)
        assert weights.numpy().all()


@pytest.mark.parametrize("name", DATASETS)
def test_training_resumes_from_any_step(tmp_path, name):
    config = make_dataset_config(name, tmp_path)
    everything = to_list(input_pipeline.make_data(config, TASK).train(0))
    assert len(everything) == config.train_steps
    first = everything[0]
    assert [column.dtype for column in first] == ["float32", "int64", "float32"]
    assert first[2].all()
    for step in (1, config.train_steps - 1):
        assert_same(
            to_list(input_pipeline.make_data(config, TASK).train(step)),
            everything[step:],
        )
    epoch = input_pipeline.make_data(config, TASK).steps_per_epoch
    assert np.abs(first[0] - everything[epoch][0]).max() > 0.1


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("digits", (1, 2)),
        ("digits", (4, 4)),
        ("fake", (2, 2)),
        ("folder", (2, 4)),
        ("tfds", (2, 4)),
    ],
)
def test_replicas_read_the_examples_of_the_global_batch(
    tmp_path, name, workers
):
    made = input_pipeline.make_data(
        make_dataset_config(name, tmp_path, drop_remainder=False), TASK
    )
    start = made.num_steps - 3
    assert_same(
        join_replicas(lambda context: made.train(start, context), *workers),
        to_list(made.train(start)),
    )
    assert_same(
        join_replicas(made.evaluation, *workers), to_list(made.evaluation())
    )


def test_strategy_distributes_the_global_batch():
    made = input_pipeline.make_data(make_config(train_steps=4), TASK)
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    distributed = strategy.distribute_datasets_from_function(
        lambda context: made.train(2, context)
    )
    batches = [
        [
            np.concatenate(strategy.experimental_local_results(column))
            for column in batch
        ]
        for batch in distributed
    ]
    assert_same(batches, to_list(made.train(2)))


def test_last_batch_is_dropped_or_padded():
    dropped = input_pipeline.make_data(
        make_config(train_epochs=2, train_steps=None), TASK
    )
    assert (dropped.steps_per_epoch, dropped.num_steps) == (22, 44)
    filled = input_pipeline.make_data(
        make_config(train_epochs=2, train_steps=None, drop_remainder=False),
        TASK,
    )
    assert (filled.steps_per_epoch, filled.num_steps) == (23, 46)
    batches = to_list(filled.train(0))
    images, labels, weights = map(np.concatenate, zip(*batches, strict=True))
    epoch = 23 * 64
    assert weights[:epoch].sum() == weights[epoch:].sum() == 1437
    assert not images[weights == 0].any() and not labels[weights == 0].any()
    targets = datasets.open_source(make_config()).train
    counts = np.bincount(labels[:epoch][weights[:epoch] > 0])
    expected = [int(targets.read(i)[1]) for i in tf.range(1437, dtype="int64")]
    np.testing.assert_array_equal(counts, np.bincount(expected))


def test_dataset_smaller_than_a_batch_is_padded():
    config = make_config(
        global_batch_size=1500, drop_remainder=False, train_steps=2
    )
    for _, _, weights in input_pipeline.make_data(config, TASK).train(0):
        assert float(tf.reduce_sum(weights)) == 1437


def test_evaluation_counts_every_example_once():
    made = input_pipeline.make_data(make_config(global_batch_size=64), TASK)
    batches = to_list(made.evaluation())
    assert len(batches) == made.num_eval_batches == 6
    images, labels, weights = map(np.concatenate, zip(*batches, strict=True))
    assert images.shape == (6 * 64, 8, 8, 1)
    assert weights.sum() == made.num_eval == 360
    assert weights[:360].all() and not weights[360:].any()
    assert not images[360:].any()
    read = datasets.open_source(make_config()).evaluation.read
    expected = [int(read(i)[1]) for i in tf.range(360, dtype="int64")]
    np.testing.assert_array_equal(labels[:360], expected)
    assert np.abs(images).max() <= 1.0


def test_input_rate_is_measured():
    made = input_pipeline.make_data(make_config(), TASK)
    assert input_pipeline.measure_rate(made) > 100


def test_folder_of_jpeg_and_png_files(tmp_path):
    tfds_archives.folder(tmp_path, num_train=5, num_eval=3)
    config = make_config(
        dataset=f"folder:{tmp_path}", global_batch_size=8, image_size=16
    )
    made = input_pipeline.make_data(config, TASK)
    assert (made.num_train, made.num_eval, made.num_classes) == (20, 12, 4)
    images, labels, weights = next(iter(made.train(0)))
    assert images.shape == (8, 16, 16, 3)
    evaluated = [label for _, label, _ in made.evaluation().unbatch().take(12)]
    assert sorted(map(int, evaluated)) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "digit"}, "unknown dataset 'digit'. Did you mean digits"),
        ({"dataset": "folder:nowhere"}, "the folder does not exist"),
        (
            {"global_batch_size": 1500},
            "has 1437 training images, fewer than one batch",
        ),
    ],
)
def test_invalid_dataset_raises_an_error(flags, message):
    with pytest.raises(RecipeError, match=message):
        input_pipeline.make_data(make_config(**flags), TASK)


def test_folder_without_splits_raises_an_error(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(RecipeError, match="It has: cats"):
        input_pipeline.make_data(
            make_config(dataset=f"folder:{tmp_path}"), TASK
        )


def test_label_without_training_images_raises_an_error(tmp_path):
    tfds_archives.folder(tmp_path, num_train=1, num_eval=1)
    (tmp_path / "validation" / "dogs").mkdir()
    with pytest.raises(RecipeError, match="does not have: dogs"):
        input_pipeline.make_data(
            make_config(dataset=f"folder:{tmp_path}"), TASK
        )


def test_error_names_missing_imagenet_archives_and_their_folder(tmp_path):
    config = make_config(dataset="imagenet2012", data_dir=str(tmp_path))
    place = f"{tmp_path}/downloads/manual: ILSVRC2012_img_train.tar"
    with pytest.raises(RecipeError, match=place):
        input_pipeline.make_data(config, TASK)


def test_batches_have_no_autotuner():
    data = input_pipeline.make_data(make_config(train_steps=2), TASK)
    for dataset in (data.train(0), data.evaluation()):
        assert dataset.options().autotune.enabled is False
    numbers = tf.data.Dataset.range(3)
    assert numbers.options().autotune.enabled is not False
    assert list(input_pipeline.without_autotune(numbers)) == [0, 1, 2]


def test_evaluation_iterators_end_without_delay():
    config = make_config()
    replicas = distribution.make_strategy(config)
    data = input_pipeline.make_data(config, TASK)
    steps = CompiledSteps(
        runner.build_trainer(config, TASK, data, replicas), data, replicas
    )
    steps.evaluate()
    start = time.perf_counter()
    # With an autotuner, each end may take up to a minute.
    for _ in range(5):
        steps.evaluate()
    assert time.perf_counter() - start < 20


def test_every_dataset_of_the_program_is_in_the_help():
    (help_text,) = (
        field.metadata["help"]
        for field in dataclasses.fields(Config)
        if field.name == "dataset"
    )
    for name, dataset in datasets.DATASETS.items():
        assert f"{name} ({dataset.description})" in help_text


def test_new_dataset_is_opened_by_name(monkeypatch):
    source = datasets.open_source(make_config())
    monkeypatch.setitem(
        datasets.DATASETS,
        "circles",
        datasets.Dataset(lambda config: source, "circles for a test"),
    )
    assert datasets.open_source(make_config(dataset="circles")) is source
