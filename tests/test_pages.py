"""What the pages show is true: snippets run, commands, links, names exist."""

import ast
import dataclasses
import pathlib
import re
import shlex

import pytest
from absl import flags

import keras_norm_cli
from recipes.config.base import Config
from recipes.detection.config import DetectionConfig

ROOT = pathlib.Path(__file__).parent.parent
FILES = ["README.md", "recipes/README.md"]
FILES += [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/*.md"))]
TEXTS = {name: (ROOT / name).read_text() for name in FILES}
# What `pip` is shown with; its arguments are not ours to check.
PIP = (
    "pip install .",
    'pip install "tensorflow[and-cuda]"',
    "pip download --no-deps cifar-10-model==7.4.0",
)
PROGRAMS = "python|make|pip|keras-norm"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

each_page = pytest.mark.parametrize("page", FILES)


def blocks(page, language):
    return [
        code for kind, code in FENCE.findall(TEXTS[page]) if kind == language
    ]


def inline(page):
    """What stands in backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXTS[page]))


def snippets():
    for page in FILES:
        for number, code in enumerate(blocks(page, "python")):
            yield pytest.param(page, code, id=f"{page}-{number}")


def commands():
    for page in FILES:
        lines = "".join(blocks(page, "bash")).splitlines()
        is_command = re.compile(rf"([A-Z_]+=\S+ )?({PROGRAMS}) ").match
        lines += [code for code in inline(page) if is_command(code)]
        for line in sorted(
            {line for line in lines if line[:1] not in ("#", "")}
        ):
            yield pytest.param(line, id=f"{page}-{line}")


@pytest.mark.parametrize(("page", "code"), list(snippets()))
def test_snippets_run(page, code):
    exec(compile(code, page, "exec"), {})


def test_there_are_snippets_and_commands():
    assert len(blocks("README.md", "python")) >= 4
    assert len(list(commands())) >= 30
    for page in FILES:
        fences = re.findall(r"^ *```", TEXTS[page], re.MULTILINE)
        assert len(fences) == 2 * len(FENCE.findall(TEXTS[page]))


@pytest.mark.parametrize("command", list(commands()))
def test_commands_are_there(command):
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    program, *arguments = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
    elif program == "python":
        script, *options = arguments
        assert (ROOT / script).is_file()
        if script in VALID and options != ["--help"]:
            VALID[script](options)
    elif program == "keras-norm":
        keras_norm_cli.parse(arguments)
    else:
        assert command in PIP


def _require_classification(options):
    from recipes import imagenet  # noqa: F401, defines the flags
    from recipes.config import flags as recipe_flags

    values = flags.FLAGS
    for name in values:
        values[name].unparse()
    left = values(["imagenet.py", *options])
    assert left == ["imagenet.py"]
    recipe_flags.to_config(values)


def _require_detection(options):
    from recipes.config import flags as recipe_flags

    # Those of both programs cannot be defined in one process.
    values = flags.FlagValues()
    recipe_flags.define_settings(values, DetectionConfig)
    assert values(["coco.py", *options]) == ["coco.py"]
    recipe_flags.to_config(values, DetectionConfig)


# What is a valid command of a program.
VALID = {
    "recipes/imagenet.py": _require_classification,
    "recipes/coco.py": _require_detection,
}


@each_page
def test_every_figure_is_filled_in(page):
    assert not re.search(r"\b[A-Z]+_(FRN|RBN|BN|TIME|TABLE)\b", TEXTS[page])


@each_page
def test_no_link_is_broken(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page])):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def anchors(text):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@each_page
def test_every_file_that_is_named_exists(page):
    for code in inline(page):
        if re.fullmatch(
            r"(keras_norm|recipes|tests|benchmarks|docs)/[\w/.]*", code
        ):
            assert (ROOT / code).exists(), code


@each_page
def test_every_flag_that_is_named_exists(page):
    known = {
        field.name
        for kind in (Config, DetectionConfig)
        for field in dataclasses.fields(kind)
    }
    known |= {f"no{name}" for name in known}
    known |= {"help", "helpfull"}
    programs = [ROOT / "keras_norm_cli.py", *ROOT.glob("benchmarks/*.py")]
    programs += ROOT.glob("recipes/**/*.py")
    for path in programs:
        # As they are typed, and fields that a program makes flags of.
        written = r"--([a-z][\w-]*)|^    ([a-z]\w*): "
        for names in re.findall(written, path.read_text(), re.MULTILINE):
            known |= set(names)
    for code in inline(page):
        if code in PIP:
            continue
        for name in re.findall(r"(?:^| )--([a-z][\w-]*)", code):
            assert name in known, code


def test_dependencies_point_as_code_says():
    (order, *_) = blocks("docs/code.md", "text")
    levels = {
        name: level
        for level, names in enumerate(order.split("<"))
        for name in names.split()
    }
    for path in (ROOT / "keras_norm").rglob("*.py"):
        parts = path.relative_to(ROOT / "keras_norm").with_suffix("").parts
        if parts == ("__init__",):
            continue
        for module in _imported(path):
            if module != parts[0]:
                assert levels[module] < levels[parts[0]], f"{path}: {module}"


def _imported(path):
    """What a file imports of the package, the first name below it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "keras_norm" and rest:
                yield rest.split(".")[0]
