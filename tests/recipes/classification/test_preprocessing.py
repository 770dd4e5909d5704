import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.classification import datasets
from recipes.classification import preprocessing
from recipes.classification import random_augment
from recipes.data import input_pipeline
from recipes.errors import RecipeError
from tests import tfds_archives
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

FURTHER = {
    "rand_augment": {"rand_augment": 9.0},
    "color_jitter": {"color_jitter": 0.8},
    "random_erasing": {"random_erasing": 0.3},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "all": {
        "rand_augment": 3.0,
        "color_jitter": 0.4,
        "random_erasing": 0.2,
        "mixup": 0.8,
        "cutmix": 2.0,
    },
}


def make_preprocessing(
    kind, size=24, which=preprocessing.training_preprocessing, channels=3
):
    config = make_config(augmentation=kind, image_size=size)
    return which(config, datasets.Source(4, channels, None, None, kind))


def make_image(height=48, width=48, channels=3):
    """Returns smooth colors with noise, uint8."""
    generator = np.random.default_rng(0)
    slope = np.linspace(40, 200, height * width * channels)
    noise = generator.normal(0, 10, slope.shape)
    shape = (height, width, channels)
    return np.clip(slope + noise, 0, 255).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize("encode", [None, tf.io.encode_jpeg, tf.io.encode_png])
@pytest.mark.parametrize("kind", ["inception", "crop_flip", "crop", "none"])
def test_augmentation_is_a_function_of_its_seed(kind, encode):
    image = make_image(40, 56)
    image = tf.constant(image) if encode is None else encode(image)
    prepare = tf.function(make_preprocessing(kind).__call__)

    def once(*seed):
        return prepare(image, tf.constant(seed, tf.int64)).numpy()

    first = once(0, 1)
    assert first.shape == (24, 24, 3)
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, once(0, 1))
    changes = [np.abs(once(0, i) - first).max() for i in range(2, 6)]
    assert (max(changes) > 0.05) == (kind != "none")


def test_jpeg_crop_equals_crop_after_decoding():
    image = tf.constant(tfds_archives.jpeg(1, 0, 64, 80))
    crop = make_preprocessing("inception")
    seed = tf.constant([3, 4], tf.int64)
    cropped, whole = crop.crop_jpeg(image, seed), crop.crop(image, seed)
    assert cropped.shape == whole.shape
    # At the border, libjpeg has no neighbors to interpolate colors from.
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_array_equal(cropped[inside], whole[inside])


def test_evaluation_crops_the_center():
    image = np.zeros((64, 128, 3), np.uint8)
    image[4:60, 36:92] = 255
    center = make_preprocessing(
        "inception", 32, preprocessing.evaluation_preprocessing
    )
    output = center(tf.constant(image), tf.zeros(2, tf.int64))
    np.testing.assert_allclose(output, np.ones((32, 32, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [("digits", kind) for kind in FURTHER if kind != "rand_augment"]
    + [("fake", "rand_augment")],
)
def test_augmented_training_resumes_with_the_same_batches(dataset, kind):
    config = make_config(
        dataset=dataset,
        image_size=8,
        train_steps=25,
        drop_remainder=False,
        global_batch_size=64,
        **FURTHER[kind],
    )
    data = input_pipeline.make_data(config, TASK)
    everything = list(data.train(20).as_numpy_iterator())
    later = list(data.train(24).as_numpy_iterator())
    context = tf.distribute.InputContext(1, 0, 2)
    halves = list(data.train(24, context).as_numpy_iterator())
    for column in range(3):
        np.testing.assert_array_equal(everything[4][column], later[0][column])
        np.testing.assert_array_equal(
            np.concatenate([half[column] for half in halves]), later[0][column]
        )
    plain = input_pipeline.make_data(
        make_config(dataset=dataset, image_size=8, train_steps=25), TASK
    )
    images = next(iter(plain.train(20)))[0]
    assert np.abs(everything[0][0] - images).max() > 0.05
    assert np.abs(everything[0][0]).max() <= 1.0


def draw(make_image, count=40):
    """Returns the outputs for the seeds (0, 0), (0, 1), ..."""
    run = tf.function(make_image, autograph=False)
    return [run(tf.constant([0, i], tf.int64)).numpy() for i in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_strength_increases_the_change(channels):
    image = tf.constant(make_image(24, 24, channels), tf.float32)
    changes = []
    for strength in (1e-3, 3.0, 10.0):
        config = make_config(rand_augment=strength)
        layer = random_augment.make_random_augment(config, channels)
        outputs = draw(lambda seed, layer=layer: layer(image, seed))
        assert all(output.shape == image.shape for output in outputs)
        assert min(output.min() for output in outputs) >= 0
        assert max(output.max() for output in outputs) <= 255.001
        changes.append([np.abs(output - image).mean() for output in outputs])
    assert np.median(changes[0]) < 2
    assert np.mean(changes[0]) < np.mean(changes[1]) < np.mean(changes[2])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_strength(channels, policy):
    keras.config.set_dtype_policy(policy)
    image = tf.constant(make_image(16, 16, channels), tf.float32)
    for strength, low, high in ((1e-4, 0.0, 0.5), (0.5, 5.0, 60.0)):
        layer = random_augment.make_random_augment(
            make_config(color_jitter=strength), channels
        )
        outputs = draw(lambda seed, layer=layer: layer(image, seed), 20)
        change = np.mean([np.abs(output - image).mean() for output in outputs])
        assert low <= change <= high
        assert np.ptp(outputs) <= 255


def test_random_erasing_erases_at_most_the_maximum():
    image = tf.constant(make_image(32, 32), tf.float32)
    layer = random_augment.make_random_augment(
        make_config(random_erasing=0.25), 3
    )
    fractions = [
        np.mean((output != image.numpy()).any(-1))
        for output in draw(lambda seed: layer(image, seed), 60)
    ]
    # Rounding may add one pixel to each side.
    assert max(fractions) <= (0.25**0.5 + 1 / 32) ** 2
    assert 0.2 < np.mean(np.array(fractions) > 0) < 0.8


def test_every_augmentation_is_a_choice_of_the_flag():
    for name in ("auto", *preprocessing.AUGMENTATIONS):
        assert make_config(augmentation=name).augmentation == name
    with pytest.raises(RecipeError, match="unknown --augmentation 'flip'"):
        make_config(augmentation="flip")


def test_strengths_are_applied_in_order():
    image = tf.constant(make_image(16, 16), tf.float32)
    seed = tf.constant([0, 1], tf.int64)
    config = make_config(color_jitter=0.5, random_erasing=0.3)
    both = random_augment.make_random_augment(config, 3)(image, seed)
    steps = [
        random_augment.make_random_augment(make_config(**flags), 3)
        for flags in ({"color_jitter": 0.5}, {"random_erasing": 0.3})
    ]
    jittered = steps[0](image, seed)
    assert np.abs(jittered - image).max() > 1
    erased = (both.numpy() != jittered.numpy()).any(-1)
    assert erased.mean() <= (0.3**0.5 + 1 / 16) ** 2
    assert random_augment.make_random_augment(make_config(), 3) is None
