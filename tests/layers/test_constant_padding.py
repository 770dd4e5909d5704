"""ConstantPadding against NumPy."""

import keras
import numpy as np
import pytest

import keras_norm

SHAPES = {1: (2, 5, 3), 2: (2, 4, 5, 3), 3: (2, 3, 4, 5, 3)}
WIDTHS = ((1, 0), (2, 1), (0, 3))


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pads_every_channel_with_its_constant(rank, data_format):
    x = np.random.default_rng(0).normal(size=SHAPES[rank]).astype("float32")
    value = np.array([1.5, -2.0, 0.0], "float32")
    widths = [(0, 0), *WIDTHS[:rank], (0, 0)]
    expected = np.stack(
        [
            np.pad(x[..., c], widths[:-1], constant_values=value[c])
            for c in range(3)
        ],
        axis=-1,
    )
    if data_format == "channels_first":
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    layer = keras_norm.ConstantPadding(WIDTHS[:rank], data_format)
    layer.build(x.shape)
    layer.set_weights([value])
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer(x)), expected
    )
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert layer(keras.Input(x.shape[1:])).shape[1:] == expected.shape[1:]
    copy = keras_norm.ConstantPadding.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


def test_unknown_sizes_and_one_number():
    x = keras.Input((None, None, 2))
    y = keras_norm.ConstantPadding(2, value_initializer="ones")(x)
    assert y.shape == (None, None, None, 2)
    padded = keras.Model(x, y).predict(np.zeros((1, 3, 4, 2)), verbose=0)
    assert padded.shape == (1, 7, 8, 2)
    assert padded.sum() == 2 * (7 * 8 - 3 * 4)


@pytest.mark.parametrize("padding", [-1, 1.5, (), ((1, -1),), "same", None])
def test_invalid_padding(padding):
    with pytest.raises(ValueError, match="Received: padding="):
        keras_norm.ConstantPadding(padding)


def test_invalid_data_format_and_rank():
    with pytest.raises(ValueError, match="Received: data_format="):
        keras_norm.ConstantPadding(1, "last")
    with pytest.raises(ValueError, match="rank 2"):
        keras_norm.ConstantPadding(1).build((2, 3))
    with pytest.raises(ValueError, match="known size"):
        keras_norm.ConstantPadding(1).build((2, 3, None))
