import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from recipes import augment
from recipes import data
from recipes import sources
from recipes.errors import RecipeError
from tests import archives
from tests.recipes.runs import make_config


def batches(config, first_epoch=0):
    return list(data.make(config).train(first_epoch).as_numpy_iterator())


def test_digits_are_real_and_split_once():
    source = sources.open_source(make_config())
    assert (source.num_train, source.num_eval) == (1437, 360)
    seen = [
        image.tobytes() for image, _ in source.evaluation().as_numpy_iterator()
    ]
    trained = {
        image.tobytes() for image, _ in source.train(0, 0).as_numpy_iterator()
    }
    assert len(seen) == 360
    assert not set(seen) & trained


def test_an_epoch_holds_every_example_once_in_an_order_of_its_own():
    order = [
        list(sources.shuffled_indices(100, seed, epoch).as_numpy_iterator())
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(indices) == list(range(100)) for indices in order)
    assert order[0] == order[1]
    assert order[0] != order[2] != order[3] != order[0]


def test_training_from_a_later_epoch_gives_the_batches_of_that_epoch():
    config = make_config(train_steps=50, global_batch_size=64)
    everything, later = batches(config), batches(config, first_epoch=1)
    assert len(everything) == 3 * (1437 // 64)
    for whole, part in zip(everything[22:], later, strict=True):
        for a, b in zip(whole, part, strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.abs(everything[0][0] - everything[22][0]).max() > 0.1


def test_evaluation_counts_every_example_once():
    made = data.make(make_config(global_batch_size=64))
    images, labels, weights = map(
        np.concatenate, zip(*made.evaluation.as_numpy_iterator(), strict=True)
    )
    assert images.shape == (6 * 64, 8, 8, 1)
    assert weights.sum() == made.num_eval == 360
    assert weights[:360].all() and not weights[360:].any()
    assert np.abs(images).max() <= 1.0


def test_a_set_of_another_size_than_it_says_is_noticed(monkeypatch):
    source = sources.open_source(make_config())
    wrong = dataclasses.replace(source, num_eval=source.num_eval + 100)
    monkeypatch.setattr(sources, "open_source", lambda config: wrong)
    evaluation = data.make(make_config()).evaluation
    with pytest.raises(tf.errors.FailedPreconditionError):
        list(evaluation)


@pytest.mark.parametrize("encode", [None, tf.io.encode_jpeg, tf.io.encode_png])
@pytest.mark.parametrize("kind", ["inception", "crop_flip", "crop", "none"])
def test_augmentation_is_a_function_of_its_seed(kind, encode):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 56, 3), np.uint8)
    image = tf.constant(image) if encode is None else encode(image)

    def once(seed):
        return augment.train_image(image, seed, kind, 24, 3).numpy()

    first = once([0, 1])
    assert first.shape == (24, 24, 3)
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, once([0, 1]))
    changes = [np.abs(once([0, i]) - first).max() for i in range(2, 6)]
    assert (max(changes) > 0.05) == (kind != "none")


def test_a_jpeg_is_cropped_as_it_is_after_decoding():
    image = archives.jpeg(1, 0, 64, 80)
    box = tf.constant([8, 16, 32, 40])
    cropped = augment._decode_and_crop(tf.constant(image), box, 3)
    whole = tf.io.decode_jpeg(image)
    # At the very border libjpeg has no neighbour to blend colours with.
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_array_equal(cropped[inside], whole[8:40, 16:56][inside])


def test_evaluation_takes_the_center():
    image = np.zeros((64, 128, 3), np.uint8)
    image[4:60, 36:92] = 255
    output = augment.eval_image(tf.constant(image), "inception", 32, 3)
    np.testing.assert_allclose(output, np.ones((32, 32, 3)), atol=1e-6)


def test_a_folder_of_jpeg_and_png_files(tmp_path):
    archives.folder(tmp_path, num_train=5, num_eval=3)
    config = make_config(
        dataset=f"folder:{tmp_path}", global_batch_size=8, image_size=16
    )
    made = data.make(config)
    assert (made.num_train, made.num_eval, made.num_classes) == (20, 12, 4)
    images, labels, weights = next(iter(made.train(0)))
    assert images.shape == (8, 16, 16, 3)
    evaluated = [label for _, label, _ in made.evaluation.unbatch().take(12)]
    assert sorted(map(int, evaluated)) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "digit"}, "unknown dataset 'digit'. Did you mean digits"),
        ({"dataset": "folder:nowhere"}, "no such folder"),
        ({"global_batch_size": 1500}, "1437 training images"),
    ],
)
def test_bad_data_is_named(flags, message):
    with pytest.raises(RecipeError, match=message):
        data.make(make_config(**flags))


def test_a_folder_without_splits_is_named(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(RecipeError, match="It holds: cats"):
        data.make(make_config(dataset=f"folder:{tmp_path}"))


def test_a_label_that_training_lacks_is_named(tmp_path):
    archives.folder(tmp_path, num_train=1, num_eval=1)
    (tmp_path / "validation" / "dogs").mkdir()
    with pytest.raises(RecipeError, match="does not: dogs"):
        data.make(make_config(dataset=f"folder:{tmp_path}"))


def test_missing_imagenet_archives_are_named_with_their_place(tmp_path):
    config = make_config(dataset="imagenet2012", data_dir=str(tmp_path))
    place = f"{tmp_path}/downloads/manual: ILSVRC2012_img_train.tar"
    with pytest.raises(RecipeError, match=place):
        data.make(config)
