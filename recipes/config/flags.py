"""Flags for the fields of a config class, and a `--help` that shows them."""

import dataclasses
import json
import sys
import textwrap
import typing

from absl import app
from absl import flags

from recipes.errors import RecipeError

HELP_WIDTH = 80
# The text that unsets an optional setting.
NONE = "none"

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


class _Unset:
    """Value of a flag given as `none`; to absl, None is an absent flag."""

    def __repr__(self):
        return NONE


_UNSET = _Unset()


class _OptionalParser(flags.ArgumentParser):
    """Parses `none`, and everything else with another parser."""

    def __init__(self, parser):
        self.parser = parser

    def parse(self, argument):
        is_none = isinstance(argument, str) and argument.lower() == NONE
        return _UNSET if is_none else self.parser.parse(argument)

    def flag_type(self):
        return f"{self.parser.flag_type()} or {NONE}"


class _HelpFlag(flags.BooleanFlag):
    def __init__(self, make_text):
        super().__init__(
            "help", False, "Show this help.", "?", allow_override=True
        )
        self.make_text = make_text

    def parse(self, arg):
        if self.parser.parse(arg):
            footer = "--helpfull shows the flags of absl too."
            print(f"{self.make_text().strip()}\n\n{footer}")
            sys.exit(0)


def define_flags(description, config_class):
    """Defines all flags of a program, and its `--help`.

    Args:
        description: Text at the top of `--help`.
        config_class: The config class of the program.
    """
    define_setting_flags(flags.FLAGS, config_class)
    define_help(lambda: program_help(description, config_class))


def define_setting_flags(flag_values, config_class):
    """Defines one flag for each setting, without default values.

    A flag that was not given must not hide the value of a preset.
    """
    for field in dataclasses.fields(config_class):
        text = describe_flag(field, config_class)
        if is_optional(field):
            parser = _OptionalParser(_PARSERS[_value_type(field)]())
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(
                parser, field.name, None, text, flag_values, serializer
            )
        else:
            define = _DEFINE[_value_type(field)]
            define(field.name, None, text, flag_values=flag_values)


def define_help(make_text):
    """Defines a `--help` that shows the program's own flags, without absl's.

    Args:
        make_text: `f()` returns the text.
    """
    app.define_help_flags()
    flags.DEFINE_flag(_HelpFlag(make_text))


def program_help(description, config_class):
    """Returns the `--help` text, with flags grouped as in the config class."""
    lines = [description.strip()]
    for group in config_class.GROUPS:
        lines += ["", f"{group.__doc__.strip()}:"]
        for field in dataclasses.fields(group):
            no = "[no]" if _value_type(field) is bool else ""
            text = describe_flag(field, config_class)
            lines += help_entry(f"{no}{field.name}", text)
    return "\n".join(lines)


def help_entry(name, text):
    """Returns the `--help` lines of a flag.

    Args:
        name: Name of the flag, without dashes.
        text: Help text.
    """
    indent = " " * 6
    text = textwrap.fill(
        text, width=HELP_WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return [f"  --{name}", text]


def describe_flag(field, config_class):
    """Returns a flag's choices, help text and default on one line."""
    text = field.metadata["help"]
    if field.metadata["choices"]:
        text = f"{'|'.join(field.metadata['choices'])}. {text}"
    if field.name == "preset":
        text += f" There are: {', '.join(config_class.PRESETS)}."
    if is_optional(field):
        text += f" {NONE} unsets it."
    if field.default not in (None, dataclasses.MISSING):
        text += f" (default: {field.default})"
    return text


def given_settings(flag_values, config_class):
    """Returns the settings that were given as flags, a dict.

    A flag given as `none` has the value None.

    Raises:
        RecipeError: if `--norm_kwargs` is not a JSON object.
    """
    settings = {
        field.name: flag_values[field.name].value
        for field in dataclasses.fields(config_class)
        if flag_values[field.name].value is not None
    }
    settings = {
        name: None if value is _UNSET else value
        for name, value in settings.items()
    }
    if "norm_kwargs" in settings:
        settings["norm_kwargs"] = _parse_json_object(settings["norm_kwargs"])
    return settings


def reject_arguments(argv):
    """Raises a `RecipeError` for command-line arguments that are not flags."""
    if len(argv) > 1:
        raise RecipeError(
            f"unexpected argument {argv[1]!r}: every setting is a flag, see "
            "--help."
        )


def is_optional(field):
    """Returns True if the field may be None, so that its flag takes `none`."""
    return type(None) in typing.get_args(field.type)


def _value_type(field):
    """Returns T for the annotations `T` and `T | None`; dict for a dict."""
    if typing.get_origin(field.type) is dict:
        return dict
    arguments = typing.get_args(field.type)
    return arguments[0] if arguments else field.type


def _parse_json_object(text):
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
