"""Flags out of the fields of `Config`, and a `Config` out of flags."""

import dataclasses
import json
import typing

from absl import flags

from recipes.classification import presets
from recipes.config import base as config_lib
from recipes.config import help
from recipes.config.base import Config
from recipes.errors import RecipeError
from recipes.run_dir import run_dir
from recipes.training import length

_DEFINE = {
    str: flags.DEFINE_string,
    dict: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}
_PARSERS = {
    str: flags.ArgumentParser,
    int: flags.IntegerParser,
    float: flags.FloatParser,
}
# The text that unsets an optional setting.
NONE = "none"


class _Unset:
    """The value of a flag that was given as `none`: absl's None is no flag."""

    def __repr__(self):
        return NONE


_UNSET = _Unset()


class _OrNone(flags.ArgumentParser):
    """Parses `none`, or what another parser does."""

    def __init__(self, parser):
        self.parser = parser

    def parse(self, argument):
        is_none = isinstance(argument, str) and argument.lower() == NONE
        return _UNSET if is_none else self.parser.parse(argument)

    def flag_type(self):
        return f"{self.parser.flag_type()} or {NONE}"


def define(program, kind=Config):
    """Defines one flag a field; without a value, so that presets can speak.

    Args:
        program: What the program is, the head of its `--help`.
        kind: The class of its config.
    """
    define_settings(flags.FLAGS, kind)
    # absl sorts flags by file; ours are sorted by what they are about.
    help.define(lambda: help_text(program, kind))


def define_settings(values, kind=Config):
    """Defines one flag a field of the config in absl's flag values."""
    for field in dataclasses.fields(kind):
        text = describe(field, kind)
        if is_optional(field):
            parser = _OrNone(_PARSERS[_type(field)]())
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(parser, field.name, None, text, values, serializer)
        else:
            define = _DEFINE[_type(field)]
            define(field.name, None, text, flag_values=values)


def help_text(program, kind=Config):
    """What `--help` shows of the program and of every flag.

    Args:
        program: What the program is.
        kind: The class of its config.
    """
    lines = [program.strip()]
    for group in kind.GROUPS:
        lines += ["", f"{group.__doc__.strip()}:"]
        for field in dataclasses.fields(group):
            no = "[no]" if _type(field) is bool else ""
            lines += help.entry(f"{no}{field.name}", describe(field, kind))
    return "\n".join(lines)


def describe(field, kind=Config):
    """What a flag is, its choices and its default, in a line."""
    text = field.metadata["help"]
    if field.metadata["choices"]:
        text = f"{'|'.join(field.metadata['choices'])}. {text}"
    if field.name == "preset":
        text += f" There are: {', '.join(kind.PRESETS)}."
    if is_optional(field):
        text += f" {NONE} unsets it."
    if field.default not in (None, dataclasses.MISSING):
        text += f" (default: {field.default})"
    return text


def to_config(values, kind=Config):
    """The config of the flags that were given.

    Args:
        values: absl's flag values.
        kind: The class of the config.

    Raises:
        RecipeError: for a value that cannot be.
    """
    settings = given(values, kind)
    folder = settings.get("workdir")
    of_no_run = {*run_dir.NOT_OF_THE_RUN, *length.FIELDS}
    if folder is not None and set(settings) <= of_no_run:
        # Nothing said of the run but its length: it is the one in the workdir,
        # if any.
        kept = run_dir.stored(folder, kind)
        return config_lib.make(kept, settings, kind)
    preset = presets.get(settings.get("preset"), kind.PRESETS)
    return config_lib.make(preset, settings, kind)


def given(values, kind=Config):
    """The settings that were given as flags, by name; None for `none`.

    Args:
        values: absl's flag values.
        kind: The class of the config that they are settings of.

    Raises:
        RecipeError: for arguments of the norm that are no JSON object.
    """
    settings = {
        field.name: values[field.name].value
        for field in dataclasses.fields(kind)
        if values[field.name].value is not None
    }
    settings = {
        name: None if value is _UNSET else value
        for name, value in settings.items()
    }
    if "norm_kwargs" in settings:
        settings["norm_kwargs"] = _parse_json(settings["norm_kwargs"])
    return settings


def is_optional(field):
    """Whether None is a value of a field: its flag takes `none`."""
    return type(None) in typing.get_args(field.type)


def _type(field):
    """The type of a field, out of `T`, `T | None` or `dict[...]`."""
    arguments = typing.get_args(field.type)
    origin = typing.get_origin(field.type)
    if origin is dict:
        return dict
    return arguments[0] if arguments else field.type


def _parse_json(text):
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(
            f"--norm_kwargs must be JSON, such as '{{\"epsilon\": 1e-5}}': "
            f"{error}. Received: {text}"
        ) from error
    if not isinstance(value, dict):
        raise RecipeError(
            "--norm_kwargs must be a JSON object, such as "
            f"'{{\"epsilon\": 1e-5}}'. Received: {text}"
        )
    return value
