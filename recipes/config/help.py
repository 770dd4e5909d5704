"""`--help` that shows a program's own flags, and not absl's."""

import sys
import textwrap

from absl import app
from absl import flags

WIDTH = 80
_FOOT = "--helpfull shows the flags of absl too."


def define(make_text):
    """Defines `--help`.

    Args:
        make_text: `f()` gives what it shows above its last line.
    """
    app.define_help_flags()
    flags.DEFINE_flag(_Help(make_text))


class _Help(flags.BooleanFlag):
    def __init__(self, make_text):
        super().__init__(
            "help", False, "Show this help.", "?", allow_override=True
        )
        self.make_text = make_text

    def parse(self, arg):
        if self._parse(arg):
            print(f"{self.make_text().strip()}\n\n{_FOOT}")
            sys.exit(0)


def entry(name, text):
    """A flag and what it is, in lines.

    Args:
        name: Its name, as it is typed after the dashes.
        text: What it is.
    """
    indent = " " * 6
    text = textwrap.fill(
        text, width=WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return [f"  --{name}", text]
