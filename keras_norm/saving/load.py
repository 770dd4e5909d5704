"""Models from files and into files: one line for whatever goes wrong."""

import contextlib
import difflib
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

import keras_norm.compat  # noqa: F401 (registers the layers of TFA)
from keras_norm.errors import ConversionError
from keras_norm.errors import printable
from keras_norm.saving import formats
from keras_norm.saving import load_limits

APPLICATIONS = "applications:"
LONGEST = 400
# As Keras says it, with the name and the registered name of the thing.
UNKNOWN = re.compile(
    r"(?:Could not (?:locate|deserialize) (?:class|function)|Unknown [\w ]+:)"
    r" '([^']+)'(?:.*'registered_name': '([^'>]+>[^']+)')?",
    re.DOTALL,
)


def load_model(
    source, unsafe=False, weights=None, modules=(), require_built=True
):
    """A model, not compiled, and what its user should know about it.

    Args:
        source: Path of a `.keras` file or of a legacy HDF5 file, of Keras 2
            too; or "applications:NAME", a function of `keras.applications`.
        unsafe: Whether Python code in the file may run. Defaults to False.
        weights: For an application: None, fresh ones, or "imagenet".
        modules: Names of imported modules, whose classes a file may name.
        require_built: Whether a model without weights is an error.

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
                staged = formats.prepare_file(
                    source, folder, unsafe, notes, modules
                )
                with _limits(source, staged):
                    model = keras.saving.load_model(
                        staged.path, compile=False, safe_mode=not unsafe
                    )
    except Exception as error:
        raise _explained(repr(source), error) from error
    if not isinstance(model, keras.Model) or not (
        model.built or not require_built
    ):
        raise ConversionError(
            f"{source!r} holds a {type(model).__name__} that is not a built "
            "model: call the model on data, then save it again"
        )
    return model, notes


def _limits(source, staged):
    if staged.num_values is None:
        return contextlib.nullcontext()
    return load_limits.limit_loading(repr(source), staged.num_values)


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
    line = printable(" ".join(text.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 3]}..."
    return ConversionError(line)
