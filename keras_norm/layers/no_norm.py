"""No normalization, where one would be."""

from keras import ops
from keras.saving import register_keras_serializable

from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._channel_layer import ChannelLayer


@register_keras_serializable(package=PACKAGE)
class NoNormalization(ChannelLayer):
    """Gives what it takes: the norm `none` of the registry.

    It is called as the normalizations are, with `training` and `mask`.

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
    """

    def call(self, inputs, training=None, mask=None):
        return ops.cast(inputs, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape
