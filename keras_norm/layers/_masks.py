"""Converts masks to tensors that broadcast against a feature map."""

from keras import ops


def convert_mask(mask):
    """Converts a mask to a tensor if it is a list; Keras does not."""
    is_list = isinstance(mask, list | tuple)
    return ops.convert_to_tensor(mask) if is_list else mask


def find_missing_axis(mask, inputs, channel_axis):
    """Returns the axis of `inputs` that a mask does not have.

    Args:
        mask: Tensor of the shape of `inputs` without the channel axis, or of
            `inputs.shape[:-1]`, which Keras' layers produce for any channel
            axis. If both fit, the first one applies.
        inputs: Tensor.
        channel_axis: Integer, at least 1.

    Raises:
        ValueError: for another shape.
    """
    shape = tuple(inputs.shape)
    for axis in (channel_axis, len(shape) - 1):
        if _fits(mask.shape, shape[:axis] + shape[axis + 1 :]):
            return axis
    raise ValueError(
        "`mask` must have the shape of the inputs without the channel axis. "
        f"Received: mask.shape={tuple(mask.shape)}, inputs.shape={shape}"
    )


def expand_mask(mask, inputs, channel_axis, joins_channels):
    """Adds the missing axis to a mask.

    Args:
        mask, inputs, channel_axis: As for `missing_axis`.
        joins_channels: Whether moments are computed over several channels.

    Returns:
        Boolean tensor of the rank of `inputs`: one channel, or all of them
        if the mask differs between channels.

    Raises:
        ValueError: as `missing_axis`, or for a mask that differs between
            channels with joint moments.
    """
    axis = find_missing_axis(mask, inputs, channel_axis)
    if axis == channel_axis:
        # One value per position, also if the mask broadcasts.
        one_channel = (slice(None),) * channel_axis + (slice(0, 1),)
        inputs = inputs[one_channel]
    elif joins_channels:
        raise ValueError(
            "A mask that differs between channels is not supported for groups "
            "of channels. Pass a mask of the inputs' shape without the "
            "channel axis. Received: "
            f"mask.shape={tuple(mask.shape)}, "
            f"inputs.shape={tuple(inputs.shape)}"
        )
    mask = ops.expand_dims(ops.cast(mask, "bool"), axis)
    return ops.logical_and(mask, ops.ones_like(inputs, "bool"))


def _fits(shape, wanted):
    """Returns True if a shape broadcasts to another, if known."""
    return len(shape) == len(wanted) and all(
        size in (1, None) or other in (size, None)
        for size, other in zip(shape, wanted, strict=True)
    )
