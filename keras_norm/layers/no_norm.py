"""A layer in place of a normalization that does nothing."""

from keras import ops
from keras.saving import register_keras_serializable

from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._channel_layer import ChannelLayer


@register_keras_serializable(package=PACKAGE)
class NoNormalization(ChannelLayer):
    """Returns its input: the norm `"none"` of `keras_norm.get`.

    Use it to train a model without normalization, from a builder that takes a
    norm. It is called as a normalization layer is, with `training` and `mask`.

        y = x

    Args:
        axis: Integer, without effect.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored.
        mask: Ignored, and passed on.

    Input shape:
        Any.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Example:

    >>> import keras, keras_norm
    >>> layer = keras_norm.NoNormalization()
    >>> keras.ops.convert_to_numpy(layer(keras.ops.array([[3.0]]))).tolist()
    [[3.0]]
    """

    def call(self, inputs, training=None, mask=None):
        return ops.cast(inputs, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape
