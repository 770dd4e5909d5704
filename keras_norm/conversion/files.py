"""Models from files and into files: one line for whatever goes wrong."""

import contextlib
import difflib
import inspect
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
import warnings
import zipfile

import h5py
import keras

import keras_norm.compat  # noqa: F401 (registers the layers of TFA)
from keras_norm.conversion.errors import ConversionError

APPLICATIONS = "applications:"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
LONGEST = 400
SEPARABLE = (
    "groups",
    "kernel_initializer",
    "kernel_regularizer",
    "kernel_constraint",
)
# What Keras 2 wrote and the layer of Keras 3 does not take.
NO_ARGUMENTS = {
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "DepthwiseConv1D": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv1D": SEPARABLE,
    "SeparableConv2D": SEPARABLE,
    "GRU": ("time_major",),
    "LSTM": ("time_major",),
    "SimpleRNN": ("time_major",),
}
MODELS = ("Functional", "Model", "Sequential")
# As Keras says it, with the name and the registered name of the thing.
UNKNOWN = re.compile(
    r"(?:Could not (?:locate|deserialize) (?:class|function)|Unknown [\w ]+:)"
    r" '([^']+)'(?:.*'registered_name': '([^'>]+>[^']+)')?",
    re.DOTALL,
)


def load_model(source, unsafe=False, weights=None):
    """A model, not compiled, and what its user should know about it.

    Args:
        source: Path of a `.keras` file or of a legacy HDF5 file, of Keras 2
            too; or "applications:NAME", a function of `keras.applications`.
        unsafe: Whether Python code in the file may run. Defaults to False.
        weights: For an application: None, fresh ones, or "imagenet".

    Returns:
        `(model, notes)`; `notes` is a list of short sentences.

    Raises:
        ConversionError: of one line, for what cannot be loaded.
    """
    source = os.fsdecode(source)
    is_application = source.startswith(APPLICATIONS)
    if weights not in ((None, "imagenet") if is_application else (None,)):
        raise ConversionError(
            "`weights` must be None or 'imagenet' for an application, and None "
            f"for a file, which has its own. Received: weights={weights!r}"
        )
    notes = []
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            if is_application:
                model = _application(source, weights, notes)
            else:
                path = _stage(pathlib.Path(source), folder, unsafe, notes)
                model = keras.saving.load_model(
                    path, compile=False, safe_mode=not unsafe
                )
    except Exception as error:
        raise _explained(repr(source), error) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise ConversionError(
            f"{source!r} holds a {type(model).__name__} that is not a built "
            "model: call the model on data, then save it again"
        )
    return model, notes


def check_target(path, overwrite=False):
    """Raises a `ConversionError` where `save_model` would, before the work."""
    path = pathlib.Path(path)
    name = repr(str(path))
    if path.suffix != ".keras":
        raise ConversionError(
            f"{name} does not end in .keras, the one format that is written: "
            f"write to {path.stem + '.keras'!r}"
        )
    try:
        if path.is_dir():
            raise ConversionError(f"{name} is a folder: name a file in it")
        if path.exists() and not overwrite:
            raise ConversionError(
                f"{name} exists: choose another name, or replace it with "
                "overwrite=True (--overwrite)"
            )
        folder = path.resolve().parent
        if not folder.is_dir():
            raise ConversionError(
                f"{name} is to lie in a folder that does not exist: make "
                f"{str(folder)!r} first"
            )
        with tempfile.NamedTemporaryFile(dir=folder, prefix="."):
            pass
    except OSError as error:
        raise _unwritten(path, error) from error


def save_model(model, path, overwrite=False):
    """Writes a `.keras` file, whole or not at all.

    Args:
        model: Keras model.
        path: Where to; ends in `.keras`.
        overwrite: Whether to replace what is there. Defaults to False.

    Raises:
        ConversionError: of one line, for what cannot be written.
    """
    check_target(path, overwrite)
    target = pathlib.Path(path).resolve()
    unfinished = target.with_name(f".{uuid.uuid4().hex}.keras")
    try:
        with _quiet():
            keras.saving.save_model(model, unfinished)
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except Exception as error:
        raise _unwritten(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet():
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _application(source, weights, notes):
    functions = {
        name.lower(): function
        for name, function in vars(keras.applications).items()
        if inspect.isfunction(function)
    }
    name = source.removeprefix(APPLICATIONS)
    near = difflib.get_close_matches(name.lower(), functions, n=1, cutoff=0)
    function = functions[near[0]]
    if function.__name__ != name:
        raise ConversionError(
            f"keras.applications has no {name!r}: the nearest name is "
            f"{APPLICATIONS}{function.__name__}"
        )
    if weights is None:
        notes.append(f"{name} has fresh random weights.")
    return function(weights=weights)


def _stage(path, folder, unsafe, notes):
    """The path of what Keras is to load: the file, or a mended copy."""
    name = repr(str(path))
    if (path / "saved_model.pb").exists():
        raise ConversionError(
            f"{name} is a SavedModel, which holds no Keras layers to convert: "
            "save the Keras model itself, as .keras"
        )
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ConversionError(
            f"{name} {what}: name a .keras or .h5 file, or {APPLICATIONS}NAME"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head == HDF5_MAGIC:
        suffixes = (".h5", ".hdf5")
        config, version = _read_hdf5(path)
    elif head.startswith(ZIP_MAGIC):
        suffixes = (".keras",)
        config, version = _read_archive(path)
    else:
        what = "neither a .keras archive nor an HDF5 file" if head else "empty"
        raise ConversionError(
            f"{name} is {what}: save the Keras model again, as .keras"
        )
    old = version.startswith(("1.", "2."))
    if old or head == HDF5_MAGIC:
        notes.append(
            f"Saved by Keras {version}, in an old format: loaded without "
            "compiling."
        )
    if unsafe:
        notes.append(f"Python code in {name} was allowed to run (unsafe).")
    elif _holds_code(config):
        # Keras 3.8 runs the code of an HDF5 file in safe mode, too.
        raise ValueError("safe_mode")
    if not old and path.suffix in suffixes:
        return path
    copy = pathlib.Path(folder, "model").with_suffix(suffixes[0])
    shutil.copyfile(path, copy)
    if old:
        write = _write_hdf5 if head == HDF5_MAGIC else _write_archive
        write(path, copy, json.dumps(_mend(config, notes)))
    return copy


def _read_hdf5(path):
    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "1.0")
    if config is None:
        raise ConversionError(
            f"{str(path)!r} holds no model, at most weights: load them into "
            "the model with model.load_weights, then save it whole, as .keras"
        )
    # TensorFlow 2.0 to 2.2 wrote bytes.
    version = version.decode() if isinstance(version, bytes) else version
    return json.loads(config), version


def _read_archive(path):
    with zipfile.ZipFile(path) as archive:
        # A checksum counts only once all of a member was read.
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {damaged!r}")
        if "config.json" not in archive.namelist():
            raise ConversionError(
                f"{str(path)!r} is a zip archive without a Keras model, it has "
                "no config.json: name a .keras or .h5 file"
            )
        config = json.loads(archive.read("config.json"))
        metadata = {}
        if "metadata.json" in archive.namelist():
            metadata = json.loads(archive.read("metadata.json"))
    # With compile=False it is not read, so no code in it would run.
    config.pop("compile_config", None)
    return config, metadata.get("keras_version", "3.0")


def _write_hdf5(path, copy, config):
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = config.encode()


def _write_archive(path, copy, config):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        new.writestr("config.json", config)
        for name in old.namelist():
            if name != "config.json":
                with old.open(name) as source, new.open(name, "w") as target:
                    shutil.copyfileobj(source, target)


def _holds_code(config):
    """Whether a config holds Python code, as Keras 2 or 3 wrote it."""
    if isinstance(config, list):
        return any(map(_holds_code, config))
    return isinstance(config, dict) and (
        config.get("class_name") == "__lambda__"
        or config.get("function_type") == "lambda"
        or isinstance(config.get("function"), list)
        or any(map(_holds_code, config.values()))
    )


def _mend(saved, notes):
    """A config of Keras 2 as Keras 3 reads it."""
    if isinstance(saved, list):
        return [_mend(value, notes) for value in saved]
    if not isinstance(saved, dict):
        return saved
    kind, config = saved.get("class_name"), saved.get("config")
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        raise ConversionError(
            f"the file holds {config['name']!r}, an operation of TensorFlow "
            "that is no layer, and Keras 3 cannot load it: put a layer in its "
            "place where the model was made"
        )
    if kind == "Sequential":
        saved["config"] = config = _with_input(config, notes)
    elif kind in MODELS:
        _mend_graph(config)
        saved["class_name"] = "Model"
    if kind in MODELS:
        if "module" in saved:
            saved |= {"module": "keras", "registered_name": None}
    elif kind and isinstance(config, dict):
        shape = config.pop("batch_input_shape", None)
        if kind == "InputLayer" and shape:
            config["batch_shape"] = shape
        if kind == "BatchNormalization" and isinstance(config["axis"], list):
            (config["axis"],) = config["axis"]
        for name in NO_ARGUMENTS.get(kind, ()):
            # time_major=True changes the layer: left for Keras to refuse.
            if config.get(name) is not True:
                config.pop(name, None)
        if isinstance(config.get("layer"), dict):
            # Wrappers look up classes by module, which Keras 2.12 brought.
            kind = config["layer"]["class_name"]
            wrapped = {"module": "keras.layers", "registered_name": kind}
            config["layer"] = wrapped | config["layer"]
    return {key: _mend(value, notes) for key, value in saved.items()}


def _with_input(config, notes):
    """The config of a Sequential that starts with an input, if it can."""
    if isinstance(config, list):
        config = {"name": "sequential", "layers": config}
    first = config["layers"][0]
    shape = first["config"].get("batch_input_shape")
    if shape and first["class_name"] != "InputLayer":
        name = first["config"]["name"]
        config["layers"].insert(
            0,
            {
                "module": "keras.layers",
                "class_name": "InputLayer",
                "config": {"batch_shape": shape, "name": f"{name}_input"},
                "registered_name": None,
            },
        )
        notes.append(
            f"The Sequential model {config['name']!r} of Keras 2 starts with "
            f"{name!r}: rebuilt on a keras.Input of shape {tuple(shape)}."
        )
    return config


def _mend_graph(config):
    """Mends how a functional model names its tensors, in place."""
    layers = config["layers"]
    for layer in layers:
        if layer["class_name"] not in MODELS:
            continue
        inner, ends = (
            [ref for ref in _references(nodes) if ref[0] == layer["name"]]
            for nodes in (
                [other["inbound_nodes"] for other in layers],
                config["output_layers"],
            )
        )
        if max(ref[1] for ref in inner + ends) < len(layer["inbound_nodes"]):
            continue
        # Keras 2 counts the calls of a nested model from one; so does Keras 3,
        # where it names the outputs and the nested model is functional.
        for ref in inner + (
            ends if layer["class_name"] == "Sequential" else []
        ):
            ref[1] -= 1
    for key in "input_layers", "output_layers":
        if isinstance(config[key], list) and len(config[key]) == 1:
            (config[key],) = config[key]


def _references(nodes):
    """The lists `[name, call, tensor, ...]` within lists and dicts."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if isinstance(nodes, list):
        if [type(part) for part in nodes[:3]] == [str, int, int]:
            yield nodes
        for part in nodes:
            yield from _references(part)


def _explained(name, error):
    """A `ConversionError` for whatever was raised while loading."""
    text = str(error)
    unknown = UNKNOWN.search(text)
    if isinstance(error, ConversionError):
        line = text
    elif "safe_mode" in text:
        line = (
            f"{name} holds Python code, which could do anything when it runs: "
            "if you trust the file, let it with unsafe=True (--unsafe)"
        )
    elif unknown:
        line = (
            f"{name} holds {unknown[2] or unknown[1]!r}, which is not known "
            "here: first import the module that registers it (--import MODULE)"
        )
    elif isinstance(error, zipfile.BadZipFile) or "truncated" in text:
        line = f"{name} is damaged or cut off, copy it again: {text}"
    else:
        line = f"{name} does not load: {_cause(error)}"
    return _one_line(line)


def _unwritten(path, error):
    if isinstance(error, ConversionError):
        return error
    return _one_line(f"{str(path)!r} cannot be written: {_cause(error)}")


def _cause(error):
    # Without the name of a temporary file.
    text = getattr(error, "strerror", None) or str(error)
    # Keras wraps an error into another, whole config and all.
    text = text.rpartition("Exception encountered: ")[-1]
    return f"{type(error).__name__}: {text}"


def _one_line(text):
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 3]}..."
    return ConversionError(line)
