"""The rules of the code base: imports, names, docstrings, sizes of folders.

docs/code.md explains them.
"""

import ast
import collections
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Folders of recipes from the bottom up. A module imports from its own folder
# and from those on earlier lines; top-level modules count as folders.
LEVELS = (
    "errors atomic_io task tf_internals",
    "config",
    "data models export",
    "run_dir",
    "training",
    "classification detection",
    "experiments",
    "imagenet coco sweep compare",
)
ENTRY_POINTS = {"imagenet", "coco", "sweep", "compare"}
# The modules that may use private names of Keras and TensorFlow.
INTERNALS = {
    "keras_norm/_keras_internals.py",
    "keras_norm/graphs/graph.py",
    "keras_norm/training/tf_internals.py",
    "keras_norm/saving/keras_internals.py",
    "recipes/tf_internals.py",
}
MAX_MODULES = 20


def modules(*folders):
    """Yields `(path relative to the root, syntax tree)` of Python files."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            yield name, ast.parse(path.read_text(), name)


def imported(tree):
    """Yields the dotted names that a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level_of(part):
    for level, names in enumerate(LEVELS):
        if part in names.split():
            return level
    raise AssertionError(f"recipes/{part} has no level in LEVELS")


def upward_imports(name, tree):
    """Returns what a module of recipes imports from above its level."""
    part = name.split("/")[1].removesuffix(".py")
    if part == "__init__":
        return []
    found = []
    for target in imported(tree):
        root, *rest = target.split(".")
        if root != "recipes" or not rest or rest[0] == part:
            continue
        if level_of(rest[0]) >= level_of(part):
            found.append(f"{name} imports {target}")
    return found


def test_recipes_import_from_lower_levels_only():
    assert not [
        line
        for name, tree in modules("recipes")
        for line in upward_imports(name, tree)
    ]


def test_an_upward_import_is_found():
    tree = ast.parse("def f():\n    from recipes.training import loop")
    assert upward_imports("recipes/data/module.py", tree)
    assert not upward_imports("recipes/detection/module.py", tree)


def test_only_entry_points_import_by_string():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules("recipes")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in ("importlib.import_module", "import_module", "__import__")
    ]
    entries = {f"recipes/{name}.py" for name in ENTRY_POINTS}
    assert not [line for line in found if line.split(":")[0] not in entries]


def test_no_folder_has_more_than_20_modules():
    counts = collections.Counter(
        name.rpartition("/")[0]
        for name, _ in modules("recipes", "keras_norm")
        if not name.endswith("__init__.py")
    )
    too_large = {k: v for k, v in counts.items() if v > MAX_MODULES}
    assert not too_large


def test_no_docstring_begins_with_what_where_or_that():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    assert not [
        f"{name}:{getattr(node, 'lineno', 1)}"
        for name, tree in modules(
            "recipes", "keras_norm", "benchmarks", "tests"
        )
        for node in ast.walk(tree)
        if isinstance(node, kinds)
        and re.match(r"(What|Where|That)\b", ast.get_docstring(node) or "")
    ]


def underscored(tree):
    """Yields `(name, line)` of private attributes that a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if re.fullmatch(r"_(?!getframe|exit\b)[a-z]\w*", node.attr):
                yield node.attr, node.lineno


def private_modules(tree):
    """Yields the private modules of Keras and TensorFlow that are imported."""
    for target in imported(tree):
        if target.startswith(("keras.src", "tensorflow.python")):
            yield target


def test_private_names_of_keras_and_tensorflow_stand_in_one_place():
    trees = dict(modules("keras_norm", "recipes"))
    own = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Store):
                    own.add(node.id)
    found = []
    for name, tree in trees.items():
        if name not in INTERNALS:
            found += [f"{name}: {target}" for target in private_modules(tree)]
            found += [
                f"{name}:{line}: {attribute}"
                for attribute, line in underscored(tree)
                if attribute not in own
            ]
    assert not found


def help_texts(program):
    """Returns the help of every flag, without choices and default."""
    done = subprocess.run(
        [sys.executable, f"recipes/{program}.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    texts, flag = {}, None
    for line in done.stdout.splitlines():
        heading = re.fullmatch(r"  --(?:\[no\])?(\w+)", line)
        if heading:
            flag = heading[1]
            texts[flag] = ""
        elif flag and line.startswith("      "):
            texts[flag] += f" {line.strip()}"
        else:
            flag = None
    extras = r"\(default: [^)]*\)|none unsets it\.|^ \S*\|\S*"
    return {flag: re.sub(extras, "", text) for flag, text in texts.items()}


@pytest.mark.parametrize("program", sorted(ENTRY_POINTS))
def test_every_flag_is_explained_in_at_least_four_words(program):
    texts = help_texts(program)
    assert texts
    assert not {k: v for k, v in texts.items() if len(v.split()) < 4}


def test_readme_has_at_most_200_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_module_names_are_importable():
    """Every folder below the packages is a package."""
    for top in ("keras_norm", "recipes"):
        for path in (ROOT / top).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path
    assert importlib.import_module("recipes")
