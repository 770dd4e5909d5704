"""The documentation is executed: snippets, commands, links, paths and flags."""

import ast
import configparser
import dataclasses
import functools
import pathlib
import re
import shlex

import pytest

import keras_norm_cli
from recipes.classification.config import Config
from recipes.detection.config import DetectionConfig
from tests.recipes.command_line import parse_flags

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["README.md", "recipes/README.md"]
PAGES += [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/*.md"))]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
# Commands of pip that install or download packages of others.
PIP = (
    'pip install "tensorflow[and-cuda]"',
    "pip download --no-deps cifar-10-model==7.4.0",
)
PROGRAMS = "python|make|pip|keras-norm"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES)


def get_blocks(page, language):
    return [
        code for kind, code in FENCE.findall(TEXTS[page]) if kind == language
    ]


def get_inline_code(page):
    """Returns the text in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXTS[page]))


def snippets():
    for page in PAGES:
        for number, code in enumerate(get_blocks(page, "python")):
            yield pytest.param(page, code, id=f"{page}-{number}")


def commands():
    for page in PAGES:
        lines = "".join(get_blocks(page, "bash")).splitlines()
        is_command = re.compile(rf"([A-Z_]+=\S+ )?({PROGRAMS}) ").match
        lines += [code for code in get_inline_code(page) if is_command(code)]
        for line in sorted(
            {line for line in lines if line[:1] not in ("#", "")}
        ):
            yield pytest.param(line, id=f"{page}-{line}")


@pytest.mark.parametrize(("page", "code"), list(snippets()))
def test_snippet_runs(page, code):
    exec(compile(code, page, "exec"), {})


def test_snippets_and_commands_are_found():
    assert len(list(snippets())) >= 20
    assert len(get_blocks("README.md", "python")) >= 4
    assert len(list(commands())) >= 60
    for page in PAGES:
        fences = re.findall(r"^ *```", TEXTS[page], re.MULTILINE)
        assert len(fences) == 2 * len(FENCE.findall(TEXTS[page]))


def test_readme_is_short():
    assert TEXTS["README.md"].count("\n") <= 200


def test_readme_links_to_every_page():
    links = re.findall(r"\]\((docs/[\w.]+)", TEXTS["README.md"])
    assert set(links) == {page for page in PAGES if page.startswith("docs/")}


@pytest.mark.parametrize("command", list(commands()))
def test_command_is_valid(command):
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
        for option in options:
            if option.startswith("--"):
                assert option[2:].partition("=")[0] in get_known_flags()
        if script in FLAG_CHECKS and options != ["--help"]:
            FLAG_CHECKS[script](options)
    elif program == "keras-norm":
        keras_norm_cli.parse(arguments)
    elif command not in PIP:
        extras = re.fullmatch(r"pip install '?\.(?:\[(\w+)\])?'?", command)
        assert extras
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert extras[1] is None or extras[1] in setup["options.extras_require"]


def _check_classification_flags(options):
    parse_flags(Config, *options)


def _check_detection_flags(options):
    parse_flags(DetectionConfig, *options)


# The function that parses and validates the flags of a program.
FLAG_CHECKS = {
    "recipes/imagenet.py": _check_classification_flags,
    "recipes/coco.py": _check_detection_flags,
}


@each_page
def test_no_placeholder_is_left(page):
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
            assert anchor in get_anchors(target.read_text()), link


def get_anchors(text):
    """Returns the anchors that GitHub creates for the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@each_page
def test_every_named_file_exists(page):
    for code in get_inline_code(page):
        if re.fullmatch(
            r"(keras_norm|recipes|tests|benchmarks|docs)/[\w/.]*", code
        ):
            assert (ROOT / code).exists(), code


@functools.cache
def get_known_flags():
    known = {
        field.name
        for config_class in (Config, DetectionConfig)
        for field in dataclasses.fields(config_class)
    }
    known |= {f"no{name}" for name in known}
    known |= {"help", "helpfull"}
    programs = [
        ROOT / "keras_norm/cli/arguments.py",
        *ROOT.glob("benchmarks/*.py"),
    ]
    programs += ROOT.glob("recipes/**/*.py")
    for path in programs:
        # Flags in the source, and dataclass fields that become flags.
        written = r"--([a-z][\w-]*)|^    ([a-z]\w*): "
        for names in re.findall(written, path.read_text(), re.MULTILINE):
            known |= set(names)
    return known


@each_page
def test_every_named_flag_exists(page):
    for code in get_inline_code(page):
        if code in PIP:
            continue
        for name in re.findall(r"(?:^| )--([a-z][\w-]*)", code):
            assert name in get_known_flags(), code


def test_imports_of_the_package_point_one_way():
    (order, *_) = get_blocks("docs/code.md", "text")
    levels = {
        name: level
        for level, names in enumerate(order.split("<"))
        for name in names.split()
    }
    for path in (ROOT / "keras_norm").rglob("*.py"):
        parts = path.relative_to(ROOT / "keras_norm").with_suffix("").parts
        if parts == ("__init__",):
            continue
        for module in _get_imported_modules(path):
            if module != parts[0]:
                assert levels[module] < levels[parts[0]], f"{path}: {module}"


def _get_imported_modules(path):
    """Yields the top-level modules of keras_norm that a file imports."""
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


# The largest number of files that a change touches, tests included, for each
# list of files in docs/code.md.
MAX_FILES = {
    "The resume path": 6,
    "Add a norm": 6,
    "Add an augmentation": 2,
    "Add an export format": 2,
    "Add a dataset": 2,
    "Add a model": 2,
    "Add a setting": 2,
    "Add a task": 10,
}


def get_file_list(title):
    """Returns the files of the numbered list below a heading of code.md."""
    (section,) = re.findall(
        rf"^##+ {title}\n(.*?)(?=^##+ |\Z)",
        FENCE.sub("", TEXTS["docs/code.md"]),
        re.DOTALL | re.MULTILINE,
    )
    return re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)


@pytest.mark.parametrize("title", MAX_FILES)
def test_a_change_touches_few_files(title):
    paths = get_file_list(title)
    assert 1 < len(paths) <= MAX_FILES[title]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_walk_through_has_a_limit():
    titles = re.findall(r"^### (Add .*)$", TEXTS["docs/code.md"], re.MULTILINE)
    assert titles == [title for title in MAX_FILES if title.startswith("Add")]


def test_a_norm_is_named_only_in_its_listed_files():
    listed = get_file_list("Add a norm")
    assert "keras_norm/layers/eval_norm.py" in listed
    for path in [
        *ROOT.glob("keras_norm/**/*.py"),
        *ROOT.glob("recipes/**/*.py"),
    ]:
        names = set(_get_names(ast.parse(path.read_text())))
        if names & {"EvalNorm", "eval_norm"}:
            assert str(path.relative_to(ROOT)) in listed, path


def _get_names(tree):
    """Yields the identifiers, attributes and strings of a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_way_through_a_recipe_exists():
    (block,) = [b for b in get_blocks("docs/code.md", "text") if " -> " in b]
    steps = re.findall(r"(\S+\.py) +(\w+(?:\.\w+)?)", block)
    assert len(steps) >= 8
    for path, name in steps:
        assert name in _get_definitions(ROOT / "recipes" / path), (path, name)


def _get_definitions(path):
    """Returns the functions, classes and methods that a file defines."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{method.name}"
                for method in node.body
                if isinstance(method, ast.FunctionDef)
            }
    return names


def test_the_tree_names_every_folder():
    cells = re.findall(r"^\| `([^`]+)`", TEXTS["docs/code.md"], re.MULTILINE)
    for top in ("keras_norm", "recipes"):
        for path in (ROOT / top).rglob("__init__.py"):
            folder = str(path.parent.relative_to(ROOT))
            assert f"{folder}/" in cells
