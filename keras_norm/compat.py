"""FRN and TLU of TensorFlow Addons (TFA), for loading models saved with them.

Importing this module registers both classes in the package "Addons", in which
`keras.saving.load_model` looks for them. They compute the same as
`keras_norm.FRN` and `keras_norm.TLU`, which are the better choice for new
models, with the arguments and weights of TFA 0.14.0 to 0.23.0.

Load with `compile=False`. Where Keras 2 saved a functional model as `.keras`,
Keras 3 misses its class: pass `custom_objects={"Functional": keras.Model}`.
"""

import math

import keras

from keras_norm.layers import frn
from keras_norm.layers import tlu
from keras_norm.layers._checks import check_choice
from keras_norm.layers._checks import check_number

PLANE_AXES = [1, 2]
# The options of our FRN that TFA's does not have: no arguments, and no keys.
FIXED = {
    "center": True,
    "scale": True,
    "activation": None,
    "groups": None,
    "subtract_mean": False,
    "learned_epsilon_initializer": None,
    "learned_epsilon_regularizer": None,
    "tau_initializer": "zeros",
    "tau_regularizer": None,
    "tau_constraint": None,
}


@keras.saving.register_keras_serializable(package="Addons")
class FilterResponseNormalization(frn.FRN):
    """TFA's FRN: `keras_norm.FRN` with TFA's arguments and weights.

    Use it to load a model that holds `Addons>FilterResponseNormalization`.
    Training and inference are the same function; no sample sees another.

        nu2 = mean(x^2)
        y   = gamma * x / sqrt(nu2 + |epsilon| + |learned_epsilon|) + beta

    `x` and `y` are `(batch, H, W, C)`, `nu2` is `(batch, 1, 1, C)`. In the
    order of the weights, `learned_epsilon`, if any, is `(1,)`, and `gamma` and
    `beta` are `(1, 1, 1, C)`.

    Args:
        epsilon: Float, of which the magnitude is used. Defaults to 1e-6.
        axis: The axes to average over, `[1, 2]` as a list or a tuple and no
            other, as in TFA. The channels are the last axis.
        learned_epsilon: Whether to learn a scalar on top. Defaults to False.
        **kwargs: As in `keras_norm.FRN`: the initializers, regularizers and
            constraints of `beta` and `gamma`, `learned_epsilon_constraint`,
            `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training, mask: Ignored, as in TFA: every position counts.

    Input shape:
        `(batch, H, W, C)`. `H` and `W` may be unknown, which TFA refused.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        TypeError: for an option of `keras_norm.FRN` that TFA did not have.
        ValueError: for an unknown keyword, another `axis`, a bad `epsilon` or
            `learned_epsilon`, a rank other than 4, or unknown channels.

    Example:

    >>> import keras, keras_norm.compat
    >>> name = "Addons>FilterResponseNormalization"
    >>> layer = keras.saving.get_registered_object(name)(epsilon=0.0)
    >>> y = layer(keras.ops.array([[[[3.0], [4.0]]]]))
    >>> [f"{v:.4f}" for v in keras.ops.convert_to_numpy(y).ravel()]
    ['0.8485', '1.1314']

    Relations:
        With its weights, reshaped, `keras_norm.FRN` is the same function.

    Departures from TFA:
        Moments are float32 or wider; TFA failed under a mixed policy.
    """

    def __init__(
        self, epsilon=1e-6, axis=(1, 2), *, learned_epsilon=False, **kwargs
    ):
        if not isinstance(axis, list | tuple) or list(axis) != PLANE_AXES:
            raise ValueError(
                f"`axis` must be {PLANE_AXES}, height and width; that of "
                f"keras_norm.FRN is the channels. Received: axis={axis!r}"
            )
        epsilon = abs(check_number("epsilon", epsilon, low=-math.inf))
        check_choice("learned_epsilon", learned_epsilon, (False, True))
        super().__init__(
            epsilon=epsilon, learned_epsilon=learned_epsilon, **FIXED, **kwargs
        )

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                "`FilterResponseNormalization` takes inputs of rank 4, (batch, "
                f"height, width, channels). Received: input_shape={input_shape}"
            )
        self._build_axes(input_shape)
        # Files identify weights by position, and TFA created this one first.
        if self._learns_epsilon:
            self.learned_epsilon = self._create_weight("learned_epsilon", (1,))
        self._build_affine()
        self.built = True

    def _create_weight(self, name, shape=None):
        return super()._create_weight(name, shape or self._broadcast_shape)

    def _per_channel(self, weight, dtype):
        # TFA's weights broadcast without a reshape.
        return None if weight is None else keras.ops.cast(weight, dtype)

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs)

    def get_config(self):
        config = super().get_config() | {"axis": list(PLANE_AXES)}
        return {key: config[key] for key in config if key not in FIXED}


@keras.saving.register_keras_serializable(package="Addons")
class TLU(tlu.TLU):
    """TFA's TLU: `keras_norm.TLU` with a threshold a value, not a channel.

    Use it to load `Addons>TLU`. It ties a model to one size of image.

        z = max(y, tau)                 affine=False
        z = max(y, alpha * y + tau)     affine=True

    `y` and `z` are `(batch, H, W, C)`, `tau` and `alpha` are `(H, W, C)`.

    Args:
        affine: Whether `alpha` is learned as well. Defaults to False.
        **kwargs: As in `keras_norm.TLU`, but for `axis` and `max_value`.

    Call arguments:
        inputs: Float tensor.
        training, mask: Ignored.

    Input shape:
        Rank 2 or higher; every size except the batch size is known.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        TypeError: for `axis` or `max_value`, which TFA did not have.
        ValueError: for an unknown keyword, a rank below 2, or an unknown size.

    Example:

    >>> import keras, keras_norm.compat
    >>> layer = keras_norm.compat.TLU()
    >>> z = layer(keras.ops.array([[[-2.0], [3.0]]]))
    >>> keras.ops.convert_to_numpy(z).ravel().tolist(), tuple(layer.tau.shape)
    ([0.0, 3.0], (2, 1))

    Relations:
        With the same `tau` everywhere it equals `keras_norm.TLU`.
    """

    def __init__(self, affine=False, **kwargs):
        super().__init__(axis=-1, affine=affine, max_value=None, **kwargs)

    def _build_axes(self, input_shape, max_rank=None):
        sizes = tuple(input_shape[1:])
        if None in sizes:
            raise ValueError(
                "TFA's TLU has a threshold for every value of a sample and "
                "must know their number; keras_norm.TLU must not. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        super()._build_axes(input_shape, max_rank)
        # Planes of one value each: every value has its own threshold.
        self._plane_axes = ()
        self._broadcast_shape = (1, *sizes)
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes=dict(enumerate(sizes, start=1))
        )

    def _create_weight(self, name, shape=None):
        return super()._create_weight(name, self._broadcast_shape[1:])

    def get_config(self):
        config = super().get_config()
        del config["axis"], config["max_value"]
        return config
