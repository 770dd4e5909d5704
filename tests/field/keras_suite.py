"""The test files in Keras' wheel, run against other layer classes."""

import importlib.util
import unittest

from keras.src import layers


class Substitutes:
    """The module `keras.src.layers`, with other classes under some names."""

    def __init__(self, classes):
        self.__dict__.update(classes)

    def __getattr__(self, name):
        return getattr(layers, name)


def load(module_name, classes=()):
    """The tests of an installed file, in a module of their own.

    Args:
        module_name: Name of the file below `keras.src`, such as
            `"layers.normalization.batch_normalization_test"`.
        classes: Dict of layer classes by the names that the file uses.

    Returns:
        Dict from `"Class.test"` to `(class, test)`, without tests that are
        marked to be skipped on this backend. Empty if the wheel does not have
        the file.
    """
    spec = importlib.util.find_spec(f"keras.src.{module_name}")
    if spec is None:
        return {}
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.layers = Substitutes(classes)
    names = unittest.TestLoader().getTestCaseNames
    return {
        f"{kind.__name__}.{name}": (kind, name)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase)
        for name in names(kind)
        if not _is_skipped(kind) and not _is_skipped(getattr(kind, name))
    }


def run(kind, name):
    """Runs one test.

    Returns:
        The traceback of its failure; None if it passed or skipped itself.
    """
    result = unittest.TestResult()
    kind(name).run(result)
    wrong = [*result.errors, *result.failures]
    return wrong[0][1] if wrong else None


def _is_skipped(marked):
    return any(
        mark.name == "skip" or (mark.name == "skipif" and mark.args[0])
        for mark in getattr(marked, "pytestmark", ())
    )
