"""Prepares `.keras` and HDF5 files of any version for this Keras."""

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import shutil
import zipfile

import h5py
import keras

from keras_norm.errors import ConversionError
from keras_norm.saving import config_checks
from keras_norm.saving import hdf5_checks
from keras_norm.saving import keras3_files
from keras_norm.saving import zip_checks

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
VERSION = re.compile(r"\d[\w.+-]{0,30}\Z", re.ASCII)


@dataclasses.dataclass(frozen=True)
class PreparedFile:
    """A file that Keras can load.

    Attributes:
        path: The file, or a converted copy.
        num_values: Number of values in its weights; None for no limit on the
            weights that may be allocated.
        is_hdf5: True for an HDF5 file, False for a `.keras` archive.
        old_config: Config of a model of Keras 2, which this Keras cannot load;
            None for Keras 3.
        has_weights_only: True for weights without a config.
        config: Config of a model of another Keras 3; None for this one.
    """

    path: pathlib.Path
    num_values: int | None
    is_hdf5: bool
    old_config: dict | None = None
    has_weights_only: bool = False
    config: dict | None = None


def prepare_file(
    source, folder, unsafe, notes, modules=(), accept_weights=False
):
    """Checks a file before Keras reads it.

    Args:
        source: Path of a `.keras` or HDF5 file; its content tells which.
        folder: Folder for a link to a file of another name.
        unsafe: If True, Python code in the file may run, and implausible sizes
            are accepted.
        notes: List of strings, to which remarks for the user are added.
        modules: Names of modules whose classes the file may contain.
        accept_weights: If True, a file may contain weights only.

    Returns:
        A `PreparedFile`.

    Raises:
        ConversionError: if it is not a model file, or contains objects that
            models do not need.
        ValueError: for Python code in the file, unless `unsafe`.
    """
    path = pathlib.Path(source)
    name = repr(str(path))
    is_hdf5 = _is_hdf5(path, name)
    if is_hdf5 and accept_weights:
        suffix = _find_weights(path, name, unsafe)
        if suffix:
            copy = pathlib.Path(folder, f"model{suffix}")
            _link(path, copy)
            return PreparedFile(copy, None, is_hdf5, has_weights_only=True)
    read = _read_hdf5 if is_hdf5 else _read_archive
    config, version, num_values = read(path, name, unsafe)
    old = version.startswith(("1.", "2."))
    if old or is_hdf5:
        notes.append(
            f"Saved by Keras {version}, in an old format: loaded without "
            "compiling."
        )
    if "class_name" not in config:
        raise ConversionError(
            f"{name} is damaged: its config does not name the class of its "
            f"model. Received: {str(config)[:80]}"
        )
    if old:
        config_checks.check_depth(config, name)
    elif not unsafe:
        config_checks.check_config(config, name, modules)
    if unsafe:
        notes.append(f"Python code in {name} was allowed to run (unsafe).")
        num_values = None
    if old:
        return PreparedFile(path, num_values, is_hdf5, old_config=config)
    suffixes = (".h5", ".hdf5") if is_hdf5 else (".keras",)
    copy = pathlib.Path(folder, "model").with_suffix(suffixes[0])
    is_current = version == keras.__version__
    if not is_hdf5 and keras3_files.update_config(config, version, notes):
        _write_archive(path, copy, json.dumps(config))
    elif path.suffix in suffixes:
        copy = path
    else:
        _link(path, copy)
    config = None if is_hdf5 or is_current else config
    return PreparedFile(copy, num_values, is_hdf5, config=config)


def _is_hdf5(path, name):
    """Returns True for an HDF5 file, False for a zip archive."""
    if (path / "saved_model.pb").exists():
        advice = "save the Keras model as a .keras file"
        if (path / "keras_metadata.pb").exists():
            advice = (
                "convert it with Keras 2 (pip install tf-keras): tf_keras."
                "models.load_model(folder).save('model.keras')"
            )
        raise ConversionError(
            f"{name} is a SavedModel, which contains no Keras layers: {advice}"
        )
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise ConversionError(
            f"{name} {problem}: pass a .keras or .h5 file, or applications:NAME"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head != HDF5_MAGIC and not head.startswith(ZIP_MAGIC):
        kind = "neither a .keras archive nor an HDF5 file" if head else "empty"
        raise ConversionError(
            f"{name} is {kind}: save the Keras model again as a .keras file"
        )
    return head == HDF5_MAGIC


def _read_hdf5(path, name, unsafe):
    """Returns the config, the version of Keras and the number of values."""
    with h5py.File(path) as file:
        text = hdf5_checks.read_text(file, "model_config", name)
        version = hdf5_checks.read_text(file, "keras_version", name) or "1.0"
        num_values = None
        if not unsafe:
            size = path.stat().st_size
            num_values = hdf5_checks.count_values(file, size, name)
    if text is None:
        raise ConversionError(
            f"{name} contains no model, at most weights: load them with "
            "model.load_weights, then save the whole model as a .keras file, "
            "or pass the function that builds the model (--builder)"
        )
    config = zip_checks.parse_json(text, "model_config", name)
    return config, _checked_version(version, name), num_values


def _find_weights(path, name, unsafe):
    """Returns the suffix by which Keras reads weights; None for a model."""
    with h5py.File(path) as file:
        if "model_config" in file.attrs:
            return None
        if not unsafe:
            hdf5_checks.count_values(file, path.stat().st_size, name)
        is_old = "layer_names" in file.attrs or "layer_names0" in file.attrs
    return ".h5" if is_old else ".weights.h5"


def _read_archive(path, name, unsafe):
    with zipfile.ZipFile(path) as archive:
        if not unsafe:
            zip_checks.check_archive(archive, path.stat().st_size, name)
        # A checksum is verified only after the whole member was read.
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {damaged!r}")
        if zip_checks.CONFIG not in archive.namelist():
            raise ConversionError(
                f"{name} is a zip archive without a Keras model, because "
                "config.json is missing: pass a .keras or .h5 file"
            )
        config = zip_checks.read_json(archive, zip_checks.CONFIG, name)
        metadata = zip_checks.read_json(archive, zip_checks.METADATA, name)
        num_values = None
        if not unsafe:
            num_values = _count_values(archive, name)
    # With compile=False Keras does not read it, so its code cannot run.
    config.pop("compile_config", None)
    version = metadata.get("keras_version", "3.0")
    return config, _checked_version(version, name), num_values


def _count_values(archive, name):
    if zip_checks.WEIGHTS not in archive.namelist():
        raise ConversionError(
            f"{name} is damaged or truncated, copy it again: "
            f"{zip_checks.WEIGHTS} is missing"
        )
    info = archive.getinfo(zip_checks.WEIGHTS)
    with archive.open(info) as file, contextlib.ExitStack() as stack:
        if info.compress_type != zipfile.ZIP_STORED:
            # HDF5 needs random access, which a compressed member lacks.
            file = io.BytesIO(file.read())
        weights = stack.enter_context(h5py.File(file))
        return hdf5_checks.count_values(weights, info.compress_size, name)


def _checked_version(version, name):
    if isinstance(version, str) and VERSION.match(version):
        return version
    raise ConversionError(
        f"{name} is damaged: its version of Keras is invalid. "
        f"Received: keras_version={str(version)[:80]!r}"
    )


def _link(path, copy):
    try:
        copy.symlink_to(path.resolve())
    except OSError:
        # On Windows only some users may create links.
        shutil.copyfile(path, copy)


def _write_archive(path, copy, config):
    """Copies an archive with another config."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        new.writestr(zip_checks.CONFIG, config)
        for name in zip_checks.keras_members(old):
            if name != zip_checks.CONFIG:
                with old.open(name) as source, new.open(name, "w") as target:
                    shutil.copyfileobj(source, target)
