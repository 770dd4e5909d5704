"""Files that Keras 2 itself wrote, against its own outputs.

tf-keras, which is Keras 2 for today's TensorFlow, runs in a process of its own
(`tf_keras_writer`). The tests look for it in this environment, or in that of
the program in TF_KERAS_PYTHON.
"""

import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.saving import load
from tests.saving import keras2_examples

ROOT = pathlib.Path(__file__).parent.parent.parent
PYTHON = os.environ.get("TF_KERAS_PYTHON")
if PYTHON is None and importlib.util.find_spec("tf_keras"):
    PYTHON = sys.executable
pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="compares with TensorFlow",
    ),
    pytest.mark.skipif(
        PYTHON is None,
        reason="tf-keras is not installed: pip install tf-keras",
    ),
]
# The oddities of old files, in the default run.
FEW = (
    "LSTM-hard_sigmoid", "ConvLSTM2D", "MultiHeadAttention",
    "BatchNormalization-axes", "BatchNormalizationV1-virtual",
    "SyncBatchNormalization", "SpatialDropout2D", "RandomRotation", "slashes",
    "partly_frozen", "mixed_float16", "op-arithmetic", "op-slice",
    "addons_instance",
)  # fmt: skip
# Names of files, and what the error about them names.
REFUSED = {
    "LocallyConnected1D": "a LocallyConnected1D of Keras 2",
    "LocallyConnected2D": "a LocallyConnected2D of Keras 2",
    "LocallyConnected2D-dense": "a LocallyConnected2D of Keras 2",
    "LocallyConnected2D-sparse": "a LocallyConnected2D of Keras 2",
    "RandomFourierFeatures": "a RandomFourierFeatures of Keras 2",
    "RandomHeight": "a RandomHeight of Keras 2",
    "RandomWidth": "a RandomWidth of Keras 2",
}
APPLICATIONS = (
    "ConvNeXtTiny-64", "DenseNet121", "EfficientNetB0-64",
    "EfficientNetV2B0-64", "InceptionResNetV2", "InceptionV3", "MobileNet-64",
    "MobileNetV2-64", "MobileNetV3Large-64", "MobileNetV3Small-64",
    "NASNetMobile-64", "RegNetX002-64", "RegNetY002-64", "ResNet50-64",
    "ResNetRS50-64", "ResNet50V2-64", "VGG16-64", "Xception",
)  # fmt: skip


def write(folder, *names):
    """Writes files in both formats with tf-keras; returns their paths."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [PYTHON, "-m", "tests.saving.tf_keras_writer", folder, *names],
        check=True,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return sorted([*folder.glob("*.h5"), *folder.glob("*.keras")])


def read_arrays(path, letter):
    with np.load(path.with_suffix(".npz")) as arrays:
        names = sorted(name for name in arrays.files if name[0] == letter)
        return [arrays[name] for name in names]


def compute(model, path):
    """Returns the outputs of a model on the inputs of a file, flattened."""
    inputs = [
        keras.ops.convert_to_tensor(
            x.astype(object) if x.dtype.kind == "U" else x
        )
        for x in read_arrays(path, "x")
    ]
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


def difference(outputs, expected):
    """Returns the largest difference relative to the largest output."""
    largest = 0.0
    for output, value in zip(outputs, expected, strict=True):
        assert output.shape == value.shape
        if value.dtype.kind not in "fiub":
            assert (output == value).all()
            continue
        output, value = output.astype("float64"), value.astype("float64")
        scale = max(np.abs(value).max(), 1e-30)
        largest = max(largest, float(np.abs(output - value).max() / scale))
    return largest


def tolerance(path):
    """Returns 1e-6, or more for networks of hundreds of layers."""
    deep = path.stem in APPLICATIONS or path.stem.startswith("op")
    return 1e-5 if deep else 1e-6


def check(path):
    """Loads a file; returns None or a problem."""
    unsafe = path.stem == "Lambda"
    try:
        model, _ = load.load_model(path, unsafe=unsafe)
    except keras_norm.ConversionError as error:
        expected = REFUSED.get(path.stem)
        return None if expected and expected in str(error) else str(error)
    if path.stem in REFUSED:
        return "was loaded"
    error = difference(compute(model, path), read_arrays(path, "y"))
    if error > tolerance(path):
        return f"outputs differ by {error:.1e}"
    return None


def loads_with_keras(path):
    """Returns True if Keras 3 alone loads a file with its outputs."""
    try:
        model = keras.saving.load_model(path, compile=False)
        error = difference(compute(model, path), read_arrays(path, "y"))
    except Exception:
        return False
    return error <= tolerance(path)


def problems(paths):
    assert paths
    found = {path.name: check(path) for path in paths}
    return {name: problem for name, problem in found.items() if problem}


def test_files_of_keras_2_give_its_outputs(tmp_path):
    paths = write(tmp_path, *FEW)
    assert len(paths) == 2 * len(FEW)
    assert problems(paths) == {}
    assert keras2_examples.in_safe_mode() is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("group", "least"), [("layers", 330), ("graphs", 38), ("operations", 95)]
)
def test_every_file_of_keras_2_gives_its_outputs(
    group, least, tmp_path, capsys
):
    paths = write(tmp_path, group)
    assert len(paths) >= least
    assert problems(paths) == {}
    with capsys.disabled():
        count = sum(map(loads_with_keras, paths))
        print(
            f"\n{group}: {len(paths)} files, of which Keras "
            f"{keras.__version__} alone loads {count} right"
        )


@pytest.mark.long
def test_missing_weights_in_an_archive_raise(tmp_path):
    path = tmp_path / "GRU.keras"
    write(tmp_path, "GRU")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/gru/cell/vars/1"]
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(keras_norm.ConversionError, match="3 variables"):
        load.load_model(path)


@pytest.mark.long
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_of_keras_2_load_and_convert(name, tmp_path):
    paths = write(tmp_path, name)
    assert len(paths) == 2 and problems(paths) == {}
    model, _ = load.load_model(paths[0])
    if not any(map(is_batch_norm, all_layers(model))):
        return
    converted, _ = keras_norm.convert(model, "rbn")
    expected = compute(model, paths[0])
    assert difference(compute(converted, paths[0]), expected) <= 1e-5
    for norm in "frn", "gn":
        options = {"groups": -1} if norm == "gn" else {}
        converted, _ = keras_norm.convert(model, norm, **options)
        assert not any(map(is_batch_norm, all_layers(converted)))


def all_layers(model):
    return [x for x in model._flatten_layers() if x is not model]


def is_batch_norm(layer):
    return isinstance(layer, keras.layers.BatchNormalization)
