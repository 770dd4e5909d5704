"""Tests of the package as a whole: dependencies, sizes, docstrings."""

import ast
import doctest
import inspect
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_norm

ROOT = pathlib.Path(__file__).parent.parent
PUBLIC = [
    getattr(keras_norm, name)
    for name in keras_norm.__all__
    if not name.startswith("_")
]


def sources(*folders):
    return [p for folder in folders for p in (ROOT / folder).rglob("*.py")]


def test_it_imports_without_tensorflow_and_datasets():
    # absl cannot be left out: Keras itself requires it. The test below sees to
    # it that the package does not add to that.
    program = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())

import keras
import keras_norm
x = keras.ops.ones((1, 2, 1))
print(keras_norm.RBN()(keras_norm.FRN()(x)).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), "HOME": "/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 2, 1)" in done.stdout


def test_the_package_imports_nothing_of_the_recipes():
    foreign = {"absl", "tensorflow_datasets", "recipes"}
    for path in sources("keras_norm"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            roots = {module.split(".")[0] for module in modules}
            assert not roots & foreign, f"{path} imports {roots & foreign}"


def test_no_source_file_is_longer_than_400_lines():
    for path in sources("keras_norm", "recipes"):
        lines = path.read_text().count("\n")
        assert lines <= 400, f"{path} has {lines} lines"


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__name__)
def test_docstring_examples_run(item):
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(item, item.__name__)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.failures == 0
    if inspect.isclass(item) and issubclass(item, keras.layers.Layer):
        assert runner.tries > 0
