"""RandAugment's operations against Pillow."""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import tensorflow as tf

from recipes.classification import rand_augment

HEIGHT, WIDTH = 24, 33


def make_image(seed=0, low=20, high=230):
    """Smooth colors with noise, integers in float32."""
    generator = np.random.default_rng(seed)
    slope = np.linspace(low, high, HEIGHT * WIDTH * 3)
    noise = generator.normal(0, 12, slope.shape)
    image = np.clip(slope + noise, low, high).round()
    return image.reshape(HEIGHT, WIDTH, 3).astype(np.float32)


def apply(name, image, level):
    operation = tf.function(rand_augment.OPERATIONS[name])
    return operation(tf.constant(image), tf.constant(level)).numpy()


def with_pillow(image, function):
    picture = PIL.Image.fromarray(image.astype(np.uint8))
    return np.asarray(function(picture)).astype(np.float32)


def transform(image, matrix):
    """Applies an affine map of pixel indices by Pillow."""
    a, b, c, d, e, f = matrix
    # Pillow puts the center of the first pixel at (0.5, 0.5).
    data = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
    return with_pillow(
        image,
        lambda picture: picture.transform(
            picture.size,
            PIL.Image.Transform.AFFINE,
            data,
            PIL.Image.Resampling.BILINEAR,
            fillcolor=(128, 128, 128),
        ),
    )


def assert_close_inside(actual, expected, border=2):
    """Compares pixels that are not interpolated with the fill color."""
    filled = (np.abs(expected - 128) < 0.5).all(-1)
    near = np.zeros_like(filled)
    for y in range(-border, border + 1):
        for x in range(-border, border + 1):
            near |= np.roll(filled, (y, x), (0, 1))
    near[:border] = near[-border:] = True
    near[:, :border] = near[:, -border:] = True
    assert np.mean(near) < 0.75
    np.testing.assert_allclose(actual[~near], expected[~near], atol=1.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_auto_contrast_and_equalize_equal_pillow(seed):
    image = make_image(seed)
    image[..., 2] = 77  # A constant channel stays.
    actual = apply("auto_contrast", image, 0.5)
    expected = with_pillow(image, PIL.ImageOps.autocontrast)
    # Pillow truncates.
    np.testing.assert_allclose(actual, expected, atol=1.0)
    assert np.abs(actual - image).max() > 10
    actual = apply("equalize", image, 0.5)
    np.testing.assert_array_equal(
        actual, with_pillow(image, PIL.ImageOps.equalize)
    )
    assert np.abs(actual - image).max() > 10


@pytest.mark.parametrize("level", [0.0, 0.3, -0.55, 1.0])
def test_solarize_and_posterize_equal_pillow(level):
    image = make_image()
    threshold = 256 * (1 - abs(level))
    np.testing.assert_array_equal(
        apply("solarize", image, level),
        with_pillow(
            image, lambda picture: PIL.ImageOps.solarize(picture, threshold)
        ),
    )
    bits = 8 - int(4 * abs(level))
    np.testing.assert_array_equal(
        apply("posterize", image, level),
        with_pillow(
            image, lambda picture: PIL.ImageOps.posterize(picture, bits)
        ),
    )


@pytest.mark.parametrize("level", [-1.0, -0.4, 0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", PIL.ImageEnhance.Brightness),
        ("color", PIL.ImageEnhance.Color),
        ("contrast", PIL.ImageEnhance.Contrast),
        ("sharpness", PIL.ImageEnhance.Sharpness),
    ],
)
def test_enhancements_equal_pillow(name, enhancer, level):
    image = make_image()
    actual = apply(name, image, level)
    expected = with_pillow(
        image, lambda picture: enhancer(picture).enhance(1 + 0.9 * level)
    )
    # Pillow rounds the degenerate image and truncates the result.
    np.testing.assert_allclose(actual, expected, atol=2.0)
    if level:
        assert np.abs(actual - image).max() > 5


@pytest.mark.parametrize("level", [-0.8, 0.35, 1.0])
def test_geometric_operations_equal_pillow(level):
    image = make_image()
    shear = 0.3 * level
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, 0.45 * level * WIDTH, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.45 * level * HEIGHT),
    }
    for name, matrix in matrices.items():
        assert_close_inside(apply(name, image, level), transform(image, matrix))


@pytest.mark.parametrize("level", [-1.0, 0.5])
def test_rotation_is_by_up_to_30_degrees(level):
    image = make_image()
    expected = with_pillow(
        image,
        lambda picture: picture.rotate(
            30 * level,
            PIL.Image.Resampling.BILINEAR,
            fillcolor=(128, 128, 128),
        ),
    )
    assert_close_inside(apply("rotate", image, level), expected)


@pytest.mark.parametrize("name", rand_augment.OPERATIONS)
def test_level_0_does_not_change_the_image(name):
    image = make_image()
    change = np.abs(apply(name, image, 0.0) - image).max()
    if name in ("auto_contrast", "equalize"):
        assert change > 5
    else:
        assert change < 1e-4


@pytest.mark.parametrize("name", rand_augment.OPERATIONS)
def test_values_stay_between_0_and_255(name):
    for level in (-1.0, 1.0):
        image = make_image(low=0, high=255)
        output = apply(name, image, level)
        assert output.shape == image.shape
        assert output.min() >= 0 and output.max() <= 255


def test_all_operations_are_drawn(monkeypatch):
    calls = []
    operations = {}
    for i, name in enumerate(rand_augment.OPERATIONS):
        operations[name] = lambda image, level, i=i: image * 0 + i
    monkeypatch.setattr(rand_augment, "OPERATIONS", operations)
    augment = tf.function(rand_augment.rand_augment(9.0, 3))
    image = tf.zeros((2, 2, 3))
    for i in range(150):
        output = augment(image, tf.constant([0, i], tf.int64))
        calls.append(int(output[0, 0, 0]))
    assert set(calls) == set(range(len(operations)))


def test_levels_are_uniform_up_to_the_strength(monkeypatch):
    monkeypatch.setattr(
        rand_augment,
        "OPERATIONS",
        {"level": lambda image, level: image * 0 + level},
    )
    augment = tf.function(rand_augment.rand_augment(4.0, 3))
    levels = np.array(
        [
            augment(tf.zeros((1, 1, 3)), tf.constant([1, i], tf.int64))[0, 0, 0]
            for i in range(200)
        ]
    )
    assert -0.4 <= levels.min() < -0.35 and 0.35 < levels.max() <= 0.4
    assert abs(levels.mean()) < 0.06
