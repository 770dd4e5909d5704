"""Keras' own tests of batch and group normalization, passed by ours.

They are read from the installed wheel, so that they belong to the Keras
that is there. Stock Keras runs in the same harness.
"""

import re

import keras
import pytest

import keras_norm
from tests.field import keras_suite

OURS = {
    "BatchNormalization": keras_norm.BatchNormalization,
    "GroupNormalization": keras_norm.GroupNormalization,
}
FILES = (
    "layers.normalization.batch_normalization_test",
    "layers.normalization.group_normalization_test",
    "layers.core.wrapper_test",
    "dtype_policies.dtype_policy_map_test",
)
# They export with these layers inside, on TensorFlow.
EXPORTS = ("export.saved_model_test", "export.litert_test")
# Each asks for the wording of an error. The other error, which must come.
OTHER_WORDS = {
    "BatchNormalizationTest.test_renorm_invalid_clipping_keys": (
        "takes the keys rmin, rmax, dmax"
    ),
    "GroupNormalizationTest.test_undefined_dim_error": (
        "The channel axis must have a known size"
    ),
    "GroupNormalizationTest.test_groups_bigger_than_dim_error": (
        "must divide the number of channels"
    ),
    "GroupNormalizationTest.test_groups_not_a_multiple_of_dim_error": (
        "must divide the number of channels"
    ),
    "GroupNormalizationTest.test_groups_rejects_invalid_values": (
        "must be a positive integer"
    ),
}


if not keras_suite.load(FILES[0]):
    pytest.skip("This wheel of Keras has no tests", allow_module_level=True)


def list_tests(files):
    return [(file, name) for file in files for name in keras_suite.load(file)]


@pytest.mark.parametrize(("file", "name"), list_tests(FILES))
@pytest.mark.parametrize(
    "stock",
    [pytest.param(True, marks=pytest.mark.long), False],
    ids=["stock", "ours"],
)
@pytest.mark.filterwarnings("default")
def test_keras_test(file, name, stock):
    case = keras_suite.load(file, {} if stock else OURS)[name]
    problem = keras_suite.run(*case)
    if stock or name not in OTHER_WORDS:
        assert problem is None, problem
    else:
        assert re.search(f"does not match .*{OTHER_WORDS[name]}", problem)


def test_files_are_in_the_wheel():
    assert len(list_tests(FILES[:1])) >= 20
    assert len(list_tests(FILES[1:2])) >= 8


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports of TensorFlow"
)
@pytest.mark.parametrize("file", EXPORTS)
@pytest.mark.filterwarnings("default")
def test_keras_test_of_exports(file):
    stock, ours = (
        {
            name: keras_suite.run(*case)
            for name, case in keras_suite.load(file, classes).items()
        }
        for classes in ({}, OURS)
    )
    assert [n for n, p in ours.items() if p and not stock[n]] == []
