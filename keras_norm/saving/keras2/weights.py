"""Restores the weights that Keras 2 saved."""

import math

import h5py
import keras
import numpy as np

from keras_norm.errors import ConversionError
from keras_norm.saving import keras_internals


def restore_hdf5(built, path):
    """Restores the weights of an HDF5 file, a group for each layer.

    Args:
        built: `Built` of the model; its layers are not frozen yet.
        path: Path of the file.

    Raises:
        ConversionError: if the weights of a layer are missing or do not fit.
    """
    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        for child in built.children or [built]:
            trainable, others = _variables(child)
            variables = trainable + others
            if child.name not in group:
                if variables:
                    raise _unfit(child.name, "the file does not contain them")
                continue
            layer = group[child.name]
            names = read_names(layer, "weight_names")
            arrays = [np.asarray(layer[name]) for name in names]
            _assign(child.name, variables, arrays)
            if isinstance(child.layer, keras.layers.Normalization):
                child.layer.finalize_state()


def read_names(group, key):
    """Returns a list of names, which Keras splits if it is long."""
    names, chunk = list(group.attrs.get(key, ())), 0
    while f"{key}{chunk}" in group.attrs:
        names += list(group.attrs[f"{key}{chunk}"])
        chunk += 1
    return [x.decode() if isinstance(x, bytes) else x for x in names]


def _variables(built):
    """Returns the trainable and the other weights in the order of Keras 2."""
    if built.wrapped is not None:
        trainable, others = _variables(built.wrapped)
    elif built.children:
        trainable, others = [], []
        for child in built.children:
            first, second = _variables(child)
            trainable, others = trainable + first, others + second
    elif built.layer is None:
        return [], []
    else:
        trainable = list(built.layer.trainable_weights)
        others = list(built.layer.non_trainable_weights)
    if not built.saved["config"].get("trainable", True):
        trainable, others = [], trainable + others
    return trainable, others


def _assign(name, variables, arrays):
    if len(arrays) > len(variables) and _is_extended(variables):
        arrays = arrays[: len(variables)]
    if len(arrays) != len(variables):
        raise _unfit(
            name, f"it has {len(variables)}, the file {len(arrays)} weights"
        )
    for variable, array in zip(variables, arrays, strict=True):
        if array.size == 1 and variable.shape == ():
            array = array.reshape(())
        if tuple(variable.shape) != array.shape:
            if array.size != math.prod(variable.shape) or not (
                _is_extended(variables)
                or _squeezed(variable.shape) == _squeezed(array.shape)
            ):
                raise _unfit(
                    name,
                    f"{variable.name} has the shape {tuple(variable.shape)}, "
                    f"in the file {array.shape}",
                )
            array = array.reshape(variable.shape)
        variable.assign(array)


def restore_archive(built, store):
    """Restores the weights of a `.keras` archive of Keras 2.

    Args:
        built: `Built` of the model; its layers are not frozen yet.
        store: `keras_internals.ArchiveStore` of the file.
    """
    _restore(built, store, "", set())


def _restore(built, store, path, seen):
    """Restores one layer, whose weights stand under a path."""
    if id(built.layer) in seen or built.layer is None:
        return
    seen.add(id(built.layer))
    if built.wrapped is not None:
        _restore(built.wrapped, store, _join(path, "layer"), seen)
    elif built.children:
        counts = {}
        inner = _join(path, store.container(path))
        for child in built.children:
            if child.layer is not None and id(child.layer) in seen:
                continue
            kind = str(child.saved["class_name"]).rpartition(">")[-1]
            name = keras_internals.to_snake_case(kind)
            count = counts[name] = counts.get(name, -1) + 1
            name = f"{name}_{count}" if count else name
            _restore(child, store, f"{inner}/{name}", seen)
    elif _is_plain(built.layer):
        arrays = store.read_variables(path)
        variables = built.layer.trainable_weights
        variables = variables + built.layer.non_trainable_weights
        _assign(built.name, variables, arrays)
    elif isinstance(built.layer, keras.layers.MultiHeadAttention):
        # Keras 3 looks for its layers under other names.
        for name in store.children(path):
            store.load(getattr(built.layer, name), _join(path, name))
    else:
        store.load(built.layer, path)


def _join(path, name):
    return f"{path}/{name}" if path else name


def _is_plain(layer):
    """Returns True for a layer whose weights stand in one list."""
    return not isinstance(layer, keras.layers.Layer) or isinstance(
        layer, keras.layers.BatchNormalization
    )


def _is_extended(variables):
    """Returns True for batch normalization, whose renorm has more weights."""
    return any("moving_variance" in x.name for x in variables)


def _squeezed(shape):
    return [size for size in shape if size != 1]


def _unfit(name, problem):
    return ConversionError(
        f"the weights of {name!r} in the file do not fit its layer: {problem}"
    )
