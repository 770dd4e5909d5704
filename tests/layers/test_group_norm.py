import keras
import numpy as np
import pytest

from keras_norm import FRN
from keras_norm import GroupNormalization
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy

SHAPE = (3, 5, 7, 12)


def draw(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(1.5, 2.0, shape).astype("float32")


def moved(x, axis):
    return np.moveaxis(x, -1, axis)


@pytest.mark.parametrize("groups", [-1, 1, 2, 3, 12])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("affine", [False, True])
def test_it_equals_keras(groups, axis, affine):
    x = moved(draw(), axis)
    kwargs = {"groups": groups, "axis": axis, "center": affine, "scale": affine}
    ours = GroupNormalization(**kwargs)
    theirs = keras.layers.GroupNormalization(**kwargs)
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights([draw((12,), i) for i in range(2 * affine)])
    for training in (False, True):
        output = ours(x, training=training)
        assert_allclose(output, theirs(x), rtol=1e-4, atol=1e-5)


def test_its_arguments_are_those_of_keras():
    theirs = keras.layers.GroupNormalization(groups=4).get_config()
    ours = GroupNormalization(groups=4).get_config()
    assert set(ours) == set(theirs)
    for key in set(ours) - {"name"}:
        assert ours[key] == theirs[key], key


@pytest.mark.parametrize("groups", [-1, 1, 3])
def test_it_is_frn_with_the_mean_subtracted(groups):
    frn = FRN(
        epsilon=1e-3,
        subtract_mean=True,
        groups=None if groups == -1 else groups,
    )
    layer = GroupNormalization(groups=groups)
    assert_allclose(layer(draw()), frn(draw()), rtol=1e-6, atol=1e-6)


def test_a_sample_does_not_see_the_others():
    x = draw()
    layer = GroupNormalization()
    alone = to_numpy(layer(x))
    x[1:] = draw(seed=1)[1:] * 100.0
    assert_array_equal(to_numpy(layer(x))[0], alone[0])


def test_a_mask_equals_an_example_without_masked_positions():
    x = draw((1, 6, 12))
    mask = np.array([[1, 1, 0, 1, 0, 0]], bool)
    layer = GroupNormalization(groups=3)
    output = to_numpy(layer(x, mask=mask))[mask][None]
    expected = layer(x[mask][None])
    assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_channels_of_a_vector_are_normalized_in_groups():
    x = draw((3, 12)).astype("float64")
    grouped = x.reshape(3, 4, 3)
    expected = grouped - grouped.mean(-1, keepdims=True)
    expected /= np.sqrt(grouped.var(-1, keepdims=True) + 1e-3)
    layer = GroupNormalization(groups=4, dtype="float64")
    assert_allclose(layer(x), expected.reshape(3, 12), rtol=1e-9)


@pytest.mark.parametrize(
    ("groups", "shape"),
    [
        (-1, (None, 12)),
        (12, (None, 12)),
        (-1, (None, 1, 1, 12)),
        (None, (None, 1, 1)),
    ],
)
def test_groups_of_one_value_are_refused(groups, shape):
    message = rf"is 0 whatever the input.*groups={groups}, input_shape=\(None"
    with pytest.raises(ValueError, match=message):
        GroupNormalization(groups=groups).build(shape)


def test_an_unknown_size_counts_as_more_than_one():
    GroupNormalization(groups=-1).build((None, None, 12))


@pytest.mark.parametrize(
    ("groups", "nearest"), [(5, "4 and 6"), (32, "12"), (7, "6 and 12")]
)
def test_invalid_groups_raise_an_error_with_the_nearest_divisors(
    groups, nearest
):
    message = f"as {nearest} would. Received: groups={groups}, channels=12"
    with pytest.raises(ValueError, match=message):
        GroupNormalization(groups=groups).build(SHAPE)


@pytest.mark.parametrize("groups", [0, -2, 2.0, -1.0, True, "all"])
def test_bad_groups_are_named(groups):
    with pytest.raises(ValueError, match=f"-1 or None. .*groups={groups!r}"):
        GroupNormalization(groups=groups)


@pytest.mark.parametrize("shape", [(3, 8), (3, 1, 1, 8)])
def test_without_positions_one_group_is_the_default(shape):
    x = draw(shape)
    assert_array_equal(GroupNormalization()(x), GroupNormalization(1)(x))
