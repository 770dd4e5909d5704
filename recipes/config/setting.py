"""One setting: a field of a config class, and the flag of the same name."""

import dataclasses
import typing

from recipes.errors import RecipeError
from recipes.errors import unknown_name_error

# What a later command in the same workdir may do with a setting.
MUST_MATCH = "must_match"
MAY_EXTEND = "may_extend"
MAY_CHANGE = "may_change"
PER_COMMAND = "per_command"
_ON_RESUME = (MUST_MATCH, MAY_EXTEND, MAY_CHANGE, PER_COMMAND)


def setting(
    default,
    help,
    choices=None,
    low=None,
    high=None,
    on_resume=MUST_MATCH,
    affects_result=True,
):
    """Returns a dataclass field for a setting.

    Args:
        default: Value if neither a preset nor a flag sets it.
        help: Help text of the flag.
        choices: Tuple of legal values, or None.
        low: Smallest legal number, or None.
        high: Largest legal number, or None.
        on_resume: Rule for a later command in the same workdir:
            `"must_match"`: the value is part of the run and may not differ;
            `"may_extend"`: training may be lengthened under some schedules;
            `"may_change"`: the value may differ from command to command;
            `"per_command"`: the same, and the value says what one command
            does, so that a sweep sets it for its runs.
        affects_result: Whether runs that differ in this setting alone may have
            different metrics. Such runs are not averaged, except over `seed`.
    """
    if on_resume not in _ON_RESUME:
        raise ValueError(
            f"on_resume must be one of {_ON_RESUME}. "
            f"Received: on_resume={on_resume!r}"
        )
    metadata = {
        "help": help,
        "choices": choices,
        "low": low,
        "high": high,
        "on_resume": on_resume,
        "affects_result": affects_result,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fields_that_affect_result(config_class):
    """Returns the names of the settings whose value may change the metrics.

    `seed` is one of them: leave it out to group runs that are averaged.
    """
    return tuple(
        field.name
        for field in dataclasses.fields(config_class)
        if field.metadata["affects_result"]
    )


def fields_by_resume_rule(config_class, *rules):
    """Returns the names of the settings with one of the `on_resume` rules."""
    return tuple(
        field.name
        for field in dataclasses.fields(config_class)
        if field.metadata["on_resume"] in rules
    )


def are_settings(values, config_class):
    """Returns True if a JSON value is a non-empty dict of typed settings."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if not isinstance(values, dict) or not values:
        return False
    return all(
        name in fields and _has_type(fields[name].type, value)
        for name, value in values.items()
    )


def _has_type(annotation, value):
    if typing.get_origin(annotation) is dict:
        return isinstance(value, dict)
    types = typing.get_args(annotation) or (annotation,)
    if type(value) is int and float in types:
        return True
    return type(value) in types


def check_value(field, value):
    """Raises a `RecipeError` for a value that the field cannot have."""
    choices = field.metadata["choices"]
    if choices is not None and value is not None and value not in choices:
        raise unknown_name_error(f"--{field.name}", str(value), choices)
    low, high = field.metadata["low"], field.metadata["high"]
    if value is None or low is None:
        return
    if not low <= value <= (high if high is not None else float("inf")):
        upper = "" if high is None else f" and at most {high}"
        raise RecipeError(
            f"--{field.name} must be at least {low}{upper}. "
            f"Received: {field.name}={value}"
        )
