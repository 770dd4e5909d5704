"""One setting: a field of the config, and a flag of the same name."""

import dataclasses
import typing

from recipes.errors import RecipeError
from recipes.errors import unknown


def setting(default, help, choices=None, low=None, high=None):
    """A field of a config.

    Args:
        default: Its value where neither a preset nor a flag gives one.
        help: What `--help` says of it.
        choices: The values that it may have, or None.
        low: The smallest number that it may be, or None.
        high: The largest number that it may be, or None.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def are_values(values, kind):
    """Whether a JSON value is a dict of settings, each of the type it has.

    Args:
        values: What a file holds.
        kind: The class of the config.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(values, dict) or not values:
        return False
    return all(
        name in fields and _has_type(fields[name].type, value)
        for name, value in values.items()
    )


def _has_type(kind, value):
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict)
    kinds = typing.get_args(kind) or (kind,)
    if type(value) is int and float in kinds:
        return True
    return type(value) in kinds


def check(field, value):
    """Refuses a value that the field cannot have.

    Raises:
        RecipeError: naming the flag and what it takes.
    """
    choices = field.metadata["choices"]
    if choices is not None and value is not None and value not in choices:
        raise unknown(f"--{field.name}", str(value), choices)
    low, high = field.metadata["low"], field.metadata["high"]
    if value is None or low is None:
        return
    if not low <= value <= (high if high is not None else float("inf")):
        upper = "" if high is None else f" and at most {high}"
        raise RecipeError(
            f"--{field.name} must be at least {low}{upper}. "
            f"Received: {field.name}={value}"
        )
