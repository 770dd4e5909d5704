"""Masks of a feature map, as a tensor that broadcasts against it."""

from keras import ops


def as_tensor(mask):
    """Converts a mask that is a list, which Keras leaves as it is."""
    is_list = isinstance(mask, list | tuple)
    return ops.convert_to_tensor(mask) if is_list else mask


def expand(mask, inputs, channel_axis, joins_channels):
    """The mask with an axis for what it does not have.

    Args:
        mask: Tensor of the shape of `inputs` without the channel axis, or of
            `inputs.shape[:-1]`, which is what Keras' layers give, whatever axis
            has the channels. Where both fit it is the first.
        inputs: Tensor.
        channel_axis: Integer, at least 1.
        joins_channels: Whether channels share their moments.

    Returns:
        Boolean tensor of the rank of `inputs`: one channel, or all of them
        where the mask differs between channels.

    Raises:
        ValueError: for another shape, or for a mask that differs between
            channels that share their moments.
    """
    shape = tuple(inputs.shape)
    without_channels = shape[:channel_axis] + shape[channel_axis + 1 :]
    mask = ops.cast(mask, "bool")
    if _fits(mask.shape, without_channels):
        mask = ops.expand_dims(mask, channel_axis)
        # One value a position, also where the mask has length 1 for many.
        one_channel = (slice(None),) * channel_axis + (slice(0, 1),)
        inputs = inputs[one_channel]
    elif not _fits(mask.shape, shape[:-1]):
        raise ValueError(
            "`mask` must have the shape of the inputs without the channel "
            f"axis. Received: mask.shape={tuple(mask.shape)}, "
            f"inputs.shape={shape}"
        )
    elif joins_channels:
        raise ValueError(
            "A mask that differs between channels cannot be used where groups "
            "of channels share their moments. Pass one of the shape of the "
            "inputs without the channel axis. Received: "
            f"mask.shape={tuple(mask.shape)}, inputs.shape={shape}"
        )
    else:
        mask = ops.expand_dims(mask, -1)
    return ops.logical_and(mask, ops.ones_like(inputs, "bool"))


def _fits(shape, wanted):
    """Whether a shape broadcasts to another, as far as both are known."""
    return len(shape) == len(wanted) and all(
        size in (1, None) or other in (size, None)
        for size, other in zip(shape, wanted, strict=True)
    )
