"""Finds weights that are NaN, infinite, or not a valid variance."""

import dataclasses

import keras
import numpy as np

from keras_norm import _keras_internals


@dataclasses.dataclass(frozen=True)
class InvalidWeight:
    """A variable with values that make outputs NaN or infinite.

    Attributes:
        path: Path of its layer, nested models first.
        layer: Name of the layer's class.
        variable: Name of the variable.
        value: The first invalid value.
        index: Index of that value in the variable.
        number: Number of invalid values.
        size: Number of values.
    """

    path: str
    layer: str
    variable: str
    value: float
    index: tuple
    number: int
    size: int

    def __str__(self):
        return (
            f"{self.path!r} ({self.layer}) has invalid values in "
            f"{self.variable}: {self.number} of {self.size}"
        )


def find_invalid_weights(model):
    """Finds the variables of a model that hold invalid values.

    NaN and infinity are invalid anywhere. A moving variance is invalid if it is
    not positive after epsilon is added, because its square root is divided by.

    Args:
        model: Keras model of any kind, built.

    Returns:
        List of `InvalidWeight`, in the order of `model.variables`.
    """
    found = {}
    _collect(model, "", found, set())
    checked = (_check_variable(*each) for each in found.values())
    return [invalid for invalid in checked if invalid is not None]


def describe_invalid_weights(invalid):
    """Returns a message that names the first variables and the fix."""
    more = f"; and {len(invalid) - 3} more" if len(invalid) > 3 else ""
    received = [
        f"{each.path}/{each.variable}{list(each.index) or ''}={each.value:g}"
        for each in invalid[:3]
    ]
    return (
        f"{'; '.join(map(str, invalid[:3]))}{more}. Load weights from before "
        "training failed, or assign finite values (positive values to a "
        f"variance). Received: {', '.join(received)}"
    )


def _collect(layer, path, found, seen):
    """Fills a dict from variable ids to variables and their inmost layers."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for variable in layer.variables:
        found[id(variable)] = path or layer.name, layer, variable
    for child in _keras_internals.direct_layers(layer):
        _collect(child, f"{path}/{child.name}".lstrip("/"), found, seen)


def _check_variable(path, layer, variable):
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if not keras.backend.is_float_dtype(dtype):
        return None
    array = keras.ops.convert_to_numpy(variable)
    if dtype != "float64":
        array = array.astype("float32", copy=False)
    bad = ~np.isfinite(array)
    epsilon = getattr(layer, "epsilon", None)
    if variable.name == "moving_variance" and isinstance(epsilon, (int, float)):
        with np.errstate(invalid="ignore"):
            bad |= array + array.dtype.type(epsilon) <= 0
    if not bad.any():
        return None
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return InvalidWeight(
        path=path,
        layer=type(layer).__name__,
        variable=variable.name,
        value=float(array[index]),
        index=index,
        number=int(bad.sum()),
        size=int(bad.size),
    )
