"""What a model file is, and a copy that this version of Keras can read."""

import json
import pathlib
import shutil
import zipfile

import h5py

from keras_norm.conversion import keras2
from keras_norm.conversion.errors import ConversionError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"


def stage(source, folder, unsafe, notes):
    """The path of what Keras is to load: the file, or a mended copy.

    Args:
        source: Path of a `.keras` or HDF5 file; told apart by their content.
        folder: Where a copy may be made.
        unsafe: Whether Python code in the file may run.
        notes: List to which is added what the user should know.

    Raises:
        ConversionError: for what is no model file.
        ValueError: for code in the file, unless it may run.
    """
    path = pathlib.Path(source)
    name = repr(str(path))
    if (path / "saved_model.pb").exists():
        raise ConversionError(
            f"{name} is a SavedModel, which holds no Keras layers to convert: "
            "save the Keras model itself, as .keras"
        )
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ConversionError(
            f"{name} {what}: name a .keras or .h5 file, or applications:NAME"
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
        write(path, copy, json.dumps(keras2.mend(config, notes)))
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
