"""Padding with one constant per channel."""

import keras
from keras import ops

from keras_norm.layers._channel_layer import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConstantPadding(keras.layers.Layer):
    """Pads positions with one constant per channel.

    `keras_norm.fold` uses it in place of the zeros of a convolution with
    `padding="same"`: the values that batch normalization maps to zero. Import
    `keras_norm` before loading a saved model that contains this layer.

        y[n, h, w, c] = x[n, h - top, w - left, c]   inside, else value[c]

    `x` is `(batch, H, W, C)`, `value` is `(C,)` and `y` is
    `(batch, top + H + bottom, left + W + right, C)`.

    Args:
        padding: One `(before, after)` pair of integers for each axis of
            positions, or one integer for all, at least 0. Defaults to 1.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `"channels_last"`.
        value_initializer: Of `value`, a weight that is not trained. Defaults to
            `"zeros"`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Tensor.

    Input shape:
        `(batch, ..., channels)`, or `(batch, channels, ...)`, with one axis or
        more of positions.

    Output shape:
        The input's shape, with padded positions.

    Raises:
        ValueError: for an invalid `padding` or `data_format`, or an input of
            another rank.

    Example:

    >>> import keras, keras_norm
    >>> layer = keras_norm.ConstantPadding(((1, 0),), value_initializer="ones")
    >>> y = layer(keras.ops.array([[[5.0], [7.0]]]))
    >>> keras.ops.convert_to_numpy(y).ravel().tolist()
    [1.0, 5.0, 7.0]

    Relations:
        With a value of zero it equals `keras.layers.ZeroPadding2D`.
    """

    def __init__(
        self,
        padding=1,
        data_format="channels_last",
        value_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.padding = _check_padding(padding)
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                "`data_format` must be 'channels_last' or 'channels_first'. "
                f"Received: data_format={data_format!r}"
            )
        self.data_format = data_format
        self.value_initializer = keras.initializers.get(value_initializer)

    def build(self, input_shape):
        widths = self._widths(len(input_shape))
        channels = input_shape[self._channel_axis(len(widths))]
        if channels is None:
            raise ValueError(
                "The channel axis must have a known size. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        self.value = self.add_weight(
            name="value",
            shape=(channels,),
            initializer=self.value_initializer,
            trainable=False,
        )
        self.built = True

    def call(self, inputs):
        widths = self._widths(len(inputs.shape))
        axis = self._channel_axis(len(widths))
        shape = [-1 if i == axis else 1 for i in range(len(widths))]
        value = ops.reshape(ops.cast(self.value, inputs.dtype), shape)
        # A map of ones around the inputs, of one example and one channel.
        first = tuple(
            slice(0, 1) if i in (0, axis) else slice(None)
            for i in range(len(widths))
        )
        inside = ops.zeros_like(inputs[first])
        border = ops.pad(inside, widths, constant_values=1)
        return ops.pad(inputs, widths) + border * value

    def compute_output_shape(self, input_shape):
        return tuple(
            None if size is None else size + before + after
            for size, (before, after) in zip(
                input_shape, self._widths(len(input_shape)), strict=True
            )
        )

    def get_config(self):
        config = super().get_config()
        config.update(
            padding=self.padding,
            data_format=self.data_format,
            value_initializer=keras.initializers.serialize(
                self.value_initializer
            ),
        )
        return config

    def _channel_axis(self, rank):
        return 1 if self.data_format == "channels_first" else rank - 1

    def _widths(self, rank):
        """Returns `(before, after)` for every axis."""
        padding = self.padding
        if isinstance(padding, int):
            padding = [(padding, padding)] * (rank - 2)
        if rank < 3 or len(padding) != rank - 2:
            raise ValueError(
                "`padding` must have one pair for each axis between the batch "
                "and the channels, of which there is at least one. Received: "
                f"padding={self.padding}, inputs of rank {rank}"
            )
        widths = [(0, 0)] + [tuple(pair) for pair in padding]
        widths.insert(self._channel_axis(rank), (0, 0))
        return widths


def _check_padding(padding):
    """Returns the padding as an integer or a tuple of pairs."""
    is_number = isinstance(padding, int) and not isinstance(padding, bool)
    if is_number and padding >= 0:
        return padding
    try:
        pairs = tuple((int(before), int(after)) for before, after in padding)
    except (TypeError, ValueError):
        pairs = ()
    if not pairs or min(map(min, pairs)) < 0:
        raise ValueError(
            "`padding` must be an integer or one (before, after) pair for each "
            f"axis of positions, at least 0. Received: padding={padding!r}"
        )
    return pairs
