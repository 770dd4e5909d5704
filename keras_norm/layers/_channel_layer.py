"""Base classes of all layers: a channel axis and weights along it."""

import functools
import numbers

import keras
from keras import ops

from keras_norm import fingerprint
from keras_norm import functional
from keras_norm import fused_ops
from keras_norm import rematerialization
from keras_norm.layers import _masks
from keras_norm.layers._checks import check_number
from keras_norm.moments import widened_dtype

PACKAGE = "keras_norm"


class ChannelLayer(keras.layers.Layer):
    """Base class of layers with weight vectors along one channel axis.

    All axes except the batch and the channels are positions; together they
    form the plane of an example and a channel. Computes in float64 under a
    float64 policy and in float32 under every other, whatever the dtype of the
    inputs and weights, and casts its output to the policy's compute dtype.

    Args:
        axis: Integer, the channel axis. Not 0, which is the batch.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    # Declarations of a layer that `keras_norm.conversion` reads.
    # True if inference is the operation of `keras.layers.BatchNormalization`
    # on the same weights, bit for bit.
    infers_as_batch_norm = False
    # Names of weights without effect on inference as long as they are zero.
    neutral_at_zero = ()
    _trains_weights = True

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        is_integer = isinstance(axis, numbers.Integral)
        if not is_integer or isinstance(axis, bool) or axis == 0:
            raise ValueError(
                "`axis` must be an integer, the channel axis; axis 0 is the "
                f"batch. Received: axis={axis!r}"
            )
        self.axis = int(axis)
        self.supports_masking = True
        # Inputs must reach `call` uncast: float16 overflows at 65504.
        self.autocast = False
        # True if moments are computed over several channels.
        self._joins_channels = False
        self._weight_names = ()

    def _declare_weight(self, name, initializer, regularizer, constraint):
        """Stores the options of a weight as `<name>_initializer` and so on."""
        setattr(
            self, f"{name}_initializer", keras.initializers.get(initializer)
        )
        setattr(
            self, f"{name}_regularizer", keras.regularizers.get(regularizer)
        )
        setattr(self, f"{name}_constraint", keras.constraints.get(constraint))
        self._weight_names += (name,)

    def _create_weight(self, name, shape=None):
        """Creates a declared weight: one value per channel, or of `shape`."""
        return self.add_weight(
            name=name,
            shape=(self._num_channels,) if shape is None else shape,
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
            trainable=self._trains_weights,
            autocast=False,
        )

    def _check_axis(self, input_shape):
        rank = len(input_shape)
        if not -rank < self.axis < rank:
            raise ValueError(
                f"`axis` is out of bounds for inputs of rank {rank}, or names "
                f"the batch. Received: axis={self.axis}, "
                f"input_shape={tuple(input_shape)}"
            )

    def _build_axes(self, input_shape, max_rank=None):
        """Checks the input's shape and derives the axes from it."""
        rank = len(input_shape)
        if rank < 2 or (max_rank is not None and rank > max_rank):
            wanted = "at least 2" if max_rank is None else f"2 to {max_rank}"
            raise ValueError(
                f"`{type(self).__name__}` takes inputs of rank {wanted}, "
                "(batch, ..., channels). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self._check_axis(input_shape)
        channel_axis = self.axis % rank
        num_channels = input_shape[channel_axis]
        if num_channels is None:
            raise ValueError(
                "The channel axis must have a known size. Received: "
                f"axis={self.axis}, input_shape={tuple(input_shape)}"
            )
        self._channel_axis = channel_axis
        self._num_channels = num_channels
        self._plane_axes = tuple(i for i in range(1, rank) if i != channel_axis)
        self._broadcast_shape = tuple(
            num_channels if i == channel_axis else 1 for i in range(rank)
        )
        self.input_spec = keras.layers.InputSpec(
            ndim=rank, axes={channel_axis: num_channels}
        )

    def _has_single_values(self, input_shape):
        """Returns True if every plane is one value; unknown sizes are not 1."""
        return all(input_shape[axis] == 1 for axis in self._plane_axes)

    def _widen(self, inputs):
        """Casts inputs to the dtype of the computation.

        The policy decides the dtype, not the inputs: NumPy arrays are float64,
        unlike weights and moments.
        """
        # In two steps: on torch, one step leaves bfloat16 arrays unchanged.
        inputs = ops.convert_to_tensor(inputs)
        return ops.cast(inputs, widened_dtype(self.compute_dtype))

    def _per_channel(self, weight, dtype):
        """Returns a weight in `dtype`, ready to broadcast; None stays None."""
        if weight is None:
            return None
        weight = ops.cast(weight, dtype)
        if len(weight.shape) == 0:
            return weight
        return ops.reshape(weight, self._broadcast_shape)

    def _valid(self, inputs, mask):
        """Returns the mask with an axis for the channels, or None."""
        mask = _masks.convert_mask(mask)
        if mask is None:
            return None
        return _masks.expand_mask(
            mask, inputs, self._channel_axis, self._joins_channels
        )

    def compute_mask(self, inputs, previous_mask):
        return _masks.convert_mask(previous_mask)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Wraps `call` under `keras.RematScope`; updates state once."""

        def remat(function):
            rematerialize = super(ChannelLayer, self).rematerialized_call
            return rematerialize(function, *args, **kwargs)

        return functools.partial(
            rematerialization.call_rematerialized, self, layer_call, remat
        )

    def load_own_variables(self, store):
        super().load_own_variables(
            fingerprint.read_without_fingerprint(self, store)
        )

    def compute_output_shape(self, input_shape):
        self._check_axis(input_shape)
        return input_shape

    def get_config(self):
        config = super().get_config()
        config["axis"] = self.axis
        for name in self._weight_names:
            for option, serialize in (
                ("initializer", keras.initializers.serialize),
                ("regularizer", keras.regularizers.serialize),
                ("constraint", keras.constraints.serialize),
            ):
                key = f"{name}_{option}"
                config[key] = serialize(getattr(self, key))
        return config


class AffineChannelLayer(ChannelLayer):
    """A channel layer that ends in `gamma * x + beta`.

    Args:
        axis: Integer, the channel axis.
        epsilon: Float, at least 0.
        center: Whether to add `beta`.
        scale: Whether to multiply by `gamma`.
        beta: `(initializer, regularizer, constraint)` of `beta`.
        gamma: `(initializer, regularizer, constraint)` of `gamma`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(self, axis, epsilon, center, scale, beta, gamma, **kwargs):
        super().__init__(axis=axis, **kwargs)
        self.epsilon = check_number("epsilon", epsilon, low=0)
        self.center = center
        self.scale = scale
        self._declare_weight("beta", *beta)
        self._declare_weight("gamma", *gamma)
        self.beta = None
        self.gamma = None

    def _build_affine(self):
        if self.scale:
            self.gamma = self._create_weight("gamma")
        if self.center:
            self.beta = self._create_weight("beta")

    def _transform(self, x, center, factor, offset=None, tau=None):
        """Computes `max(gamma * ((x - center) * factor + offset) + beta, tau)`.

        Args:
            x: Tensor `(N, H, W, C)`, float32 or wider.
            center: Tensor, one value per plane or channel, or None.
            factor: As `center`, not None.
            offset: As `center`.
            tau: Weight of the layer or None.
        """
        factor, offset = functional.fold_affine(
            factor,
            offset,
            self._per_channel(self.gamma, x.dtype),
            self._per_channel(self.beta, x.dtype),
        )
        tau = self._per_channel(tau, x.dtype)
        y = fused_ops.affine(x, self._plane_axes, center, factor, offset, tau)
        return functional.cast_finite(y, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            epsilon=self.epsilon, center=self.center, scale=self.scale
        )
        return config
