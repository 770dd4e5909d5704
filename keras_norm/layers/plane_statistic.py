"""What describes a plane to RBN: a name or a function, as an argument."""

import keras

NAMES = ("mean", "std")


def check(argument, statistic):
    """Returns the statistic, read back first if it comes from a config.

    Args:
        argument: The name of the argument, for the message.
        statistic: `"mean"`, `"std"`, a function called as
            `f(x, axis=..., keepdims=True)`, its serialized form, or None.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(statistic, dict):
        statistic = keras.saving.deserialize_keras_object(statistic)
    if statistic is None or statistic in NAMES or callable(statistic):
        return statistic
    raise ValueError(
        f'`{argument}` must be "mean", "std", a function or None. '
        f"Received: {argument}={statistic!r}"
    )


def serialize(statistic):
    """The statistic as it stands in a config."""
    if callable(statistic):
        return keras.saving.serialize_keras_object(statistic)
    return statistic
