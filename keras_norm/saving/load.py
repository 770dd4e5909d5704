"""Loads and saves model files; every error is one line."""

import contextlib
import importlib
import inspect
import io
import os
import pathlib
import re
import tempfile
import uuid
import warnings
import zipfile

import keras

from keras_norm.errors import ConversionError
from keras_norm.errors import nearest_name
from keras_norm.errors import one_line
from keras_norm.errors import printable
from keras_norm.saving import formats
from keras_norm.saving import keras3_files
from keras_norm.saving import load_limits
from keras_norm.saving.keras2 import reader

APPLICATIONS = "applications:"
MAX_LINE = 400
# Error of Keras with the name and the registered name of an unknown object.
UNKNOWN = re.compile(
    r"(?:Could not (?:locate|deserialize) (?:class|function)|Unknown [\w ]+:)"
    r" '([^']+)'(?:.*'registered_name': '([^'>]+>[^']+)')?",
    re.DOTALL,
)


class Notes(list):
    """Remarks about a loaded file, each a string of one line.

    Attributes:
        renamed: Dict from the names of layers in the file, to their names in
            the model where these differ.
    """

    def __init__(self):
        super().__init__()
        self.renamed = {}


def load_model(
    source,
    unsafe=False,
    weights=None,
    modules=(),
    require_built=True,
    builder=None,
):
    """Loads a model without compiling it.

    Args:
        source: Path of a `.keras` file or of a legacy HDF5 file, also of Keras
            2; or "applications:NAME", a function of `keras.applications`.
        unsafe: If True, Python code in the file may run. Defaults to False.
        weights: Weights of an application: None for random initialization, or
            "imagenet".
        modules: Names of imported modules whose classes a file may contain.
        require_built: If True, a model without weights is an error.
        builder: For a file with weights only, a function without arguments
            that returns the model, which the weights are loaded into.

    Returns:
        `(model, notes)`; `notes` is a list of remarks for the user, with an
        attribute `renamed`, a dict of the layers whose names had to change.

    Raises:
        ConversionError: with a message of one line, if loading fails.
    """
    # Registers the layers of TFA, which `import keras_norm` leaves out.
    importlib.import_module("keras_norm.compat")
    source = os.fsdecode(source)
    is_application = source.startswith(APPLICATIONS)
    if weights not in ((None, "imagenet") if is_application else (None,)):
        raise ConversionError(
            "`weights` must be None or 'imagenet' for an application, and None "
            f"for a file, which contains weights. Received: weights={weights!r}"
        )
    notes = Notes()
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            if is_application:
                model = _application(source, weights, notes)
            else:
                prepared = formats.prepare_file(
                    source, folder, unsafe, notes, modules, bool(builder)
                )
                with _limits(source, prepared):
                    model = _read(prepared, unsafe, notes, modules, builder)
    except Exception as error:
        raise _load_error(repr(source), error) from error
    if not isinstance(model, keras.Model) or not (
        model.built or not require_built
    ):
        raise ConversionError(
            f"{source!r} contains a {type(model).__name__} that is not a built "
            "model: call the model on data, then save it again"
        )
    return model, notes


def _read(prepared, unsafe, notes, modules, builder):
    if prepared.has_weights_only:
        model = builder()
        if not isinstance(model, keras.Model) or not model.built:
            raise ConversionError(
                "the builder must return a built Keras model. "
                f"Received: {str(model)[:80]}"
            )
        model.load_weights(prepared.path)
        return model
    if builder is not None:
        raise ConversionError(
            f"{str(prepared.path)!r} contains a whole model: load it without a "
            "builder (--builder), which is for files with weights only"
        )
    if prepared.old_config is None:
        model = keras.saving.load_model(
            prepared.path, compile=False, safe_mode=not unsafe
        )
        if prepared.config is not None:
            notes += keras3_files.describe_differences(model, prepared.config)
        return model
    return reader.read_model(prepared, unsafe, notes, modules)


def _limits(source, prepared):
    if prepared.num_values is None:
        return contextlib.nullcontext()
    return load_limits.limit_loading(repr(source), prepared.num_values)


def check_target(path, overwrite=False):
    """Raises a `ConversionError` if `save_model` cannot write the path."""
    path = pathlib.Path(path)
    name = repr(str(path))
    if path.suffix != ".keras":
        raise ConversionError(
            f"{name} does not end in .keras, the only supported output format: "
            f"write to {path.stem + '.keras'!r}"
        )
    try:
        if path.is_dir():
            raise ConversionError(f"{name} is a folder: pass a file in it")
        if path.exists() and not overwrite:
            raise ConversionError(
                f"{name} exists: choose another name, or replace it with "
                "overwrite=True (--overwrite)"
            )
        folder = path.resolve().parent
        if not folder.is_dir():
            raise ConversionError(
                f"The folder of {name} does not exist: create "
                f"{str(folder)!r} first"
            )
        with tempfile.NamedTemporaryFile(dir=folder, prefix="."):
            pass
    except OSError as error:
        raise _write_error(path, error) from error


def save_model(model, path, overwrite=False):
    """Writes a `.keras` file atomically.

    Args:
        model: Keras model.
        path: Path of the file; ends in `.keras`.
        overwrite: If True, replaces an existing file. Defaults to False.

    Raises:
        ConversionError: with a message of one line, if writing fails.
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
        raise _write_error(path, error) from error
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
        name: function
        for name, function in vars(keras.applications).items()
        if inspect.isfunction(function)
    }
    name = source.removeprefix(APPLICATIONS)
    function = functions[nearest_name(name, functions, cutoff=0)]
    if function.__name__ != name:
        raise ConversionError(
            f"keras.applications has no model {name!r}: the nearest name is "
            f"{APPLICATIONS}{function.__name__}"
        )
    if weights is None:
        notes.append(f"{name} has random initial weights.")
    return function(weights=weights)


def _load_error(name, error):
    """Returns a `ConversionError` for any error raised while loading."""
    text = str(error)
    unknown = UNKNOWN.search(text)
    if isinstance(error, ConversionError):
        line = text
    elif "safe_mode" in text:
        line = (
            f"{name} contains Python code, which could do anything when it "
            "runs: if you trust the file, allow it with unsafe=True (--unsafe)"
        )
    elif unknown:
        line = (
            f"{name} contains {unknown[2] or unknown[1]!r}, which is unknown: "
            "first import the module that registers it (--import MODULE)"
        )
    elif isinstance(error, zipfile.BadZipFile) or "truncated" in text:
        line = f"{name} is damaged or truncated, copy it again: {text}"
    else:
        line = f"{name} cannot be loaded: {_cause(error)}"
    return _conversion_error(line)


def _write_error(path, error):
    if isinstance(error, ConversionError):
        return error
    return _conversion_error(
        f"{str(path)!r} cannot be written: {_cause(error)}"
    )


def _cause(error):
    # `strerror` leaves out the name of a temporary file.
    text = getattr(error, "strerror", None) or str(error)
    # Keras wraps an error in another error with the whole config.
    text = text.rpartition("Exception encountered: ")[-1]
    return f"{type(error).__name__}: {text}"


def _conversion_error(text):
    line = printable(one_line(text))
    if len(line) > MAX_LINE:
        line = f"{line[: MAX_LINE - 3]}..."
    return ConversionError(line)
