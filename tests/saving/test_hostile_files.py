"""Malformed and hostile files end in a one-line error."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.errors import ConversionError
from keras_norm.saving import load as files_lib
from keras_norm.saving import load_limits
from tests.saving import hostile_files
from tests.saving import keras2_examples
from tests.saving.hostile_files import LAYERS
from tests.saving.hostile_files import function
from tests.saving.hostile_files import insert
from tests.saving.hostile_files import layer
from tests.saving.hostile_files import node
from tests.saving.hostile_files import put
from tests.saving.hostile_files import tensor

ROOT = pathlib.Path(__file__).parent.parent.parent
MAX_MEMORY = 1.5e9
MAX_TEMPORARY = 100e6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return hostile_files.Files(tmp_path_factory.mktemp("whole"))


def fails(path, **options):
    """Returns the one-line error that loading raises."""
    with pytest.raises(ConversionError) as raised:
        files_lib.load_model(path, **options)
    line = str(raised.value)
    assert "\n" not in line and len(line) <= 400
    return line


def run(folder, *names, timeout=120):
    """Runs the program on malformed files in a new process."""
    for part in "files", "temporary":
        (folder / part).mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.saving.hostile_files",
            folder / "files",
            *names,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(folder / "temporary"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run(tmp_path_factory.mktemp("hostile"))


def check(result):
    assert result["code"] == 1, result
    assert result["output"] == ""
    line = result["errors"]
    assert line.startswith("error: ") and line.count("\n") == 1, line
    assert line.rstrip("\n").isprintable()
    assert result["written"] == result["left"] == []
    assert result["rss"] < MAX_MEMORY
    assert result["temporary"] < MAX_TEMPORARY


NAMES = [
    *hostile_files.EDITS,
    *hostile_files.ARCHIVES,
    *hostile_files.HDF5,
    *hostile_files.OTHERS,
]


# https://github.com/keras-team/keras/security/advisories lists most kinds:
# decompression bombs, shape bombs, links out of an HDF5 file, paths out of a
# zip archive.
@pytest.mark.parametrize("name", NAMES)
def test_malformed_file_prints_a_one_line_error(name, results):
    check(results[name])


def test_number_of_malformed_files():
    assert len(set(NAMES)) == len(NAMES) >= 140


@pytest.mark.parametrize(
    "name", ["json_null", "json_list", "json_three", "config_empty"]
)
def test_config_that_is_not_a_dict_is_damaged(name, results):
    assert "' is damaged: its config" in results[name]["errors"]


@pytest.mark.parametrize("name", ["filters_huge", "h5_old_filters"])
def test_weights_larger_than_stored_raise(name, results):
    # 3 x 3 x 3 values a filter; the file has 216 in its kernel, and 40 more.
    line = results[name]["errors"]
    assert (
        f"{27 * hostile_files.HUGE:,} weights or more, but it stores 256"
        in line
    )


# True expansions: gigabytes of zeros in files of a few megabytes.
@pytest.mark.long
@pytest.mark.parametrize(
    ("member", "version"),
    [
        (hostile_files.CONFIG, None),
        (hostile_files.METADATA, None),
        (hostile_files.WEIGHTS, None),
        ("assets/zeros", None),
        ("assets/zeros", "2.12.0"),
        ("readme.txt", "2.12.0"),
    ],
)
def test_decompression_bomb_is_not_unpacked(member, version, tmp_path):
    code = (
        "import json, pathlib, sys, tempfile\n"
        "from tests.saving import hostile_files\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "files = hostile_files.Files(folder)\n"
        f"bomb = hostile_files.write_bomb({member!r}, 2**31, {version!r})\n"
        "path = folder / 'in' / 'model.keras'\n"
        "path.parent.mkdir()\n"
        "bomb(files, path)\n"
        "assert path.stat().st_size < 4e6\n"
        "temporary = pathlib.Path(tempfile.gettempdir())\n"
        "with hostile_files.Largest(temporary) as large:\n"
        "    result = hostile_files.convert(path)\n"
        "print(json.dumps({**result, 'temporary': large.size, 'left': []}))\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    check(json.loads(done.stdout))


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """Path of a file that exists after code of a model file has run."""
    path = tmp_path / "ran"
    (tmp_path / "evil_module.py").write_text(
        f"open({str(path)!r}, 'w').close()\n"
        "class Evil:\n"
        "    @classmethod\n"
        "    def from_config(cls, config):\n"
        "        return cls()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("evil_module", None)


def touch(path):
    """Layer that is a function of a module, called with a shell command."""
    return layer(
        "function",
        "os",
        "system",
        registered_name="system",
        inbound_nodes=[{"args": [f"touch {path}"], "kwargs": {}}],
    )


def called(saved, *args):
    """Layer that is a function, also called on a tensor of the model."""
    return {
        **layer("x"),
        **saved,
        "inbound_nodes": [node(*args, extra=tensor("image"))],
    }


def nested_compile(path):
    """Nested model with a function in its compile config."""
    inner = layer("Sequential", "keras", {"layers": []})
    return {**inner, "compile_config": {"loss": function("os", "system")}}


CODE = {
    "report": touch,
    "with_tensor": lambda p: called(function("os", "system"), f"touch {p}"),
    "builtin": lambda p: called(
        function("builtins", "exec"), f"open({str(p)!r}, 'w')"
    ),
    "builtin_as_class": lambda p: layer("exec", "builtins"),
    "import": lambda p: layer("Evil", "evil_module"),
    "import_function": lambda p: called(function("evil_module", "f")),
    "import_deep": lambda p: layer(
        "Activation", config={"activation": layer("Evil", "evil_module")}
    ),
    "initializer": lambda p: layer(
        "Dense",
        config={"units": 3, "kernel_initializer": layer("x", "evil_module")},
    ),
    "lambda_function": lambda p: layer(
        "Lambda", config={"function": function("os", "system")}
    ),
    "node_argument": lambda p: layer(
        "Add", inbound_nodes=[node(tensor("image"), function("os", "system"))]
    ),
    "registered_name": lambda p: layer(
        "Nothing", "os", registered_name="system"
    ),
    "function_registered": lambda p: called(
        {**function("os", "system"), "registered_name": "keras_norm>FRN"},
        f"touch {p}",
    ),
    "keras_get_file": lambda p: called(
        function("keras.utils", "get_file"), "x", f"file://{p}"
    ),
    "keras_load_model": lambda p: called(
        function("keras.saving", "load_model"), "x"
    ),
    "keras_unsafe": lambda p: layer(
        "enable_unsafe_deserialization", "keras.config"
    ),
    "keras_func_load": lambda p: called(
        function("keras.src.utils.python_utils", "func_load"), "x"
    ),
    "keras_deserialize": lambda p: called(
        function("builtins", "deserialize"), touch(p)
    ),
    "keras_callback": lambda p: layer("BackupAndRestore", "keras.callbacks"),
    "keras_norm_main": lambda p: called(function("keras_norm.cli", "main")),
    "keras_no_layer": lambda p: layer("KerasFileEditor", "keras.saving"),
    "imported_by_keras": lambda p: called(
        function("keras.src.saving.saving_lib", "zipfile")
    ),
    "typespec": lambda p: layer(
        "Add",
        inbound_nodes=[
            node(
                tensor("image"),
                {
                    "class_name": "__typespec__",
                    "module": "evil_module",
                    "spec_name": "Evil",
                    "registered_name": None,
                    "config": [],
                },
            )
        ],
    ),
    "lambda": lambda p: layer(
        "Activation",
        config={"activation": {"class_name": "__lambda__", "config": {}}},
    ),
    "compile": nested_compile,
    "saved_model": lambda p: layer("TFSMLayer", config={"filepath": str(p)}),
    "torch_pickle": lambda p: layer(
        "TorchModuleWrapper", config={"module": "gASVAAAA"}
    ),
    "jax_function": lambda p: layer("JaxLayer", config={}),
    "vocabulary": lambda p: layer(
        "StringLookup", config={"vocabulary": "/etc/passwd"}
    ),
    "text_vocabulary": lambda p: layer(
        "TextVectorization", config={"vocabulary": "/etc/passwd"}
    ),
}


# CVE-2025-1550: keras.Model.load_model runs code in safe mode, up to 3.8.
# https://github.com/keras-team/keras/pull/20751
@pytest.mark.parametrize("kind", CODE)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_python_code_in_a_file_does_not_run(
    kind, suffix, files, marker, tmp_path
):
    path, saved = tmp_path / f"model{suffix}", CODE[kind](marker)
    if suffix == ".keras":
        files.edit(path, insert(saved))
    else:
        files.edit_hdf5(path, hostile_files.config_of(insert(saved)))
    line = fails(path)
    assert not marker.exists() and "evil_module" not in sys.modules
    for word in ("is unknown", "--unsafe", "Python code", "is damaged"):
        if word in line:
            break
    else:
        raise AssertionError(line)


# Files of Keras 2 name layers without a module, and Keras looks the names up
# among all that its package of layers imports.
@pytest.mark.parametrize("kind", ["deserialize", "serialization_lib", "exec"])
def test_legacy_layer_loads(kind, files, tmp_path):
    saved = {
        "class_name": kind,
        "config": {"config": touch(tmp_path / "ran")},
        "name": "extra",
        "inbound_nodes": [[["image", 0, 0, {}]]],
    }

    def edit(file):
        file.attrs["keras_version"] = "2.9.0"
        hostile_files.config_of(insert(saved))(file)

    files.edit_hdf5(tmp_path / "model.h5", edit)
    assert "is unknown" in fails(tmp_path / "model.h5") or kind == "exec"
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_read(files, tmp_path):
    # Keras 3.8 reads them with allow_pickle=True.
    path = tmp_path / "model.keras"
    hostile_files.npz(files, path)
    assert "model.weights.h5 is missing" in fails(path)


def test_python_code_runs_if_unsafe(tmp_path):
    double = layers.Lambda(lambda x: 2.0 * x, output_shape=(3,))
    model = keras.Sequential([keras.Input((3,)), double])
    path = tmp_path / "model.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    assert "Python code" in fails(path)
    loaded, _ = files_lib.load_model(path, unsafe=True)
    x = np.ones((2, 3), "float32")
    assert np.all(keras.ops.convert_to_numpy(loaded(x)) == 2.0)


def test_sizes_are_not_limited_if_unsafe(files, tmp_path):
    def edit(config):
        config["config"]["layers"][1]["config"]["filters"] = 2**12

    path = tmp_path / "model.keras"
    files.edit(path, edit)
    # Few enough to be harmless: Keras itself finds that nothing fits.
    assert "cannot be loaded" in fails(path)
    files.edit(path, put(*LAYERS, 1, "config", "filters", value=2**21))
    assert "is refused: its layers have" in fails(path)
    assert "is refused" not in fails(path, unsafe=True)


@keras.saving.register_keras_serializable("field")
def swish_twice(x):
    return keras.activations.silu(keras.activations.silu(x))


@keras.saving.register_keras_serializable("field")
class Holder(layers.Layer):
    """Layer with objects and a dict in its config."""

    def __init__(self, start=None, function=None, **kwargs):
        super().__init__(**kwargs)
        make = keras.saving.deserialize_keras_object
        self.start = make(start) if isinstance(start, dict) else start
        is_saved = isinstance(function, dict)
        self.function = make(function) if is_saved else function

    def build(self, shape):
        self.weight = self.add_weight(shape=(3,), initializer=self.start)

    def call(self, x):
        return self.function(x) + self.weight

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "start": serialize(self.start),
            "function": serialize(self.function),
        }


def chain(*parts, shape=(8, 8, 4)):
    x = y = keras.Input(shape)
    for part in parts:
        y = part(y)
    return keras.Model(x, y)


def operations():
    x = keras.Input((8, 8, 4))
    y = keras.ops.relu(x * np.arange(4, dtype="float32") + 1.5)
    y = keras.ops.concatenate([y[:, ::2, ::2], x[:, 1::2, 1::2]], axis=-1)
    y = keras.ops.mean(keras.ops.reshape(y, (-1, 16, 8)), axis=(1,))
    return keras.Model(x, keras.ops.where(y > 0.5, y, keras.ops.sigmoid(y)))


def reused():
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    x = y = keras.Input((4,))
    for _ in range(30):
        y = norm(dense(y))
    inner = keras.Model(x, y)
    z = keras.Input((4,))
    return keras.Model(z, layers.Add()([inner(inner(z)), z]))


def nested_deep():
    model = chain(layers.Conv2D(4, 1))
    for _ in range(12):
        model = chain(model, layers.ReLU())
    return model


LEGITIMATE = {
    "operations": operations,
    "reused": reused,
    "nested": nested_deep,
    "options": lambda: chain(
        layers.Conv2D(
            4,
            3,
            kernel_initializer=keras.initializers.HeNormal(3),
            kernel_regularizer=keras.regularizers.L1L2(1e-3, 1e-3),
            bias_constraint=keras.constraints.MaxNorm(2.0),
            activation=keras.layers.LeakyReLU(0.1),
            dtype="mixed_bfloat16",
        ),
        layers.Activation(swish_twice),
        layers.Activation(keras.activations.gelu),
        layers.Lambda(swish_twice, output_shape=(6, 6, 4)),
        layers.SpectralNormalization(layers.Dense(3)),
        Holder(keras.initializers.Constant(2.0), swish_twice),
    ),
    "recurrent": lambda: chain(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(3), layers.GRUCell(2)])
        ),
        shape=(5, 4),
    ),
    "attention": lambda: chain(
        layers.Embedding(50, 8, mask_zero=True),
        lambda y: layers.MultiHeadAttention(2, 4)(y, y),
        layers.LayerNormalization(),
        layers.Dropout(0.1),
        shape=(6,),
    ),
    "images": lambda: chain(
        layers.Rescaling(1 / 255),
        layers.Normalization(mean=[0.1] * 4, variance=[1.0] * 4),
        layers.RandomFlip(),
        layers.Resizing(4, 4),
        keras_norm.FRN(),
        keras_norm.TLU(),
    ),
    "application": lambda: keras.applications.MobileNetV2(
        (32, 32, 3), 0.35, weights=None
    ),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_keras_load(kind, suffix, tmp_path, monkeypatch):
    # Only stored values are allocated.
    monkeypatch.setattr(load_limits, "MARGIN", 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LEGITIMATE[kind]()
        model.compile("adam", "mse")
        path = tmp_path / f"model{suffix}"
        keras.saving.save_model(model, path)
        try:
            keras.saving.load_model(path, compile=False)
        except Exception as error:
            pytest.skip(f"Keras does not load it either: {error}"[:200])
    loaded, _ = files_lib.load_model(path)
    pairs = zip(model.get_weights(), loaded.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="text needs TensorFlow"
)
def test_vocabulary_in_the_file_loads(tmp_path):
    text = layers.TextVectorization(vocabulary=["cat", "dog"])
    lookup = layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=2)
    for part in text, lookup:
        inputs = keras.Input((1,), dtype="string")
        keras.Model(inputs, part(inputs)).save(tmp_path / "model.keras")
        loaded, _ = files_lib.load_model(tmp_path / "model.keras")
        assert loaded.layers[1].get_vocabulary() == part.get_vocabulary()


def test_files_of_keras_2_load_with_their_functions(files, tmp_path):
    def edit(config):
        at = config["config"]["layers"]
        at[1]["config"]["activation"] = "relu"
        at[1]["config"]["kernel_initializer"] = {
            "class_name": "GlorotUniform",
            "config": {"seed": None},
        }

    keras2_examples.write_hdf5(
        tmp_path / "model.h5", hostile_files.model(), edit=edit
    )
    loaded, _ = files_lib.load_model(tmp_path / "model.h5")
    assert loaded.layers[1].activation is keras.activations.relu


def test_classes_of_an_imported_module_load(files, tmp_path, monkeypatch):
    (tmp_path / "field_layers.py").write_text(
        "import keras, subprocess\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("field_layers")
    path = tmp_path / "model.keras"
    saved = layer("Twice", "field_layers", registered_name="Twice")
    files.edit(path, insert(saved))
    assert "contains 'field_layers.Twice', which is unknown" in fails(path)
    try:
        files_lib.load_model(path, modules=["field_layers"])
    except ConversionError as error:
        # Since Keras 3.9 it has to be registered as well.
        assert "contains 'Twice', which is unknown" in str(error)
    else:
        assert keras.__version__ < "3.9"
    files.edit(path, insert(layer("Popen", "field_layers")))
    assert "is unknown" in fails(path, modules=["field_layers"])


def test_load_limits_end_with_the_scope(files, tmp_path):
    from keras.src.backend.common.variables import Variable
    from keras.src.models import functional

    before = (
        Variable.__init__,
        keras.layers.Normalization.build,
        functional.deserialize_node,
    )
    files.edit(tmp_path / "model.keras", hostile_files.EDITS["filters_huge"])
    fails(tmp_path / "model.keras")
    assert before == (
        Variable.__init__,
        keras.layers.Normalization.build,
        functional.deserialize_node,
    )


def test_compressed_weights_load(files, tmp_path):
    import zipfile

    with zipfile.ZipFile(
        tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED
    ) as archive:
        for name, data in files.parts.items():
            archive.writestr(name, data)
        archive.writestr("__MACOSX/readme.txt", "more")
    model, _ = files_lib.load_model(tmp_path / "model.keras")
    with h5py.File(tmp_path / "x.h5", "w"):
        pass
    assert model.count_params() == 256
