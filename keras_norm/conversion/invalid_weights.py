"""Weights that no model can compute with, each by its layer and its name."""

import dataclasses

import keras
import numpy as np

from keras_norm.conversion import graph


@dataclasses.dataclass(frozen=True)
class InvalidWeight:
    """A variable that makes outputs NaN or infinite.

    Attributes:
        path: Where its layer is, nested models first.
        layer: The class of the layer.
        variable: The name of the variable.
        value: The first of its values that is none.
        index: Where in the variable that is.
        number: How many such values it has.
        size: How many values it has.
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
            f"{self.path!r} ({self.layer}) has {self.number} of {self.size} "
            f"values of {self.variable} that it cannot compute with"
        )


def find_invalid_weights(model):
    """The variables of a model that hold what they cannot mean.

    NaN and infinity anywhere; and a moving variance that is not above zero once
    epsilon is added, of which no square root can be divided by.

    Args:
        model: Keras model of any kind, built.

    Returns:
        List of `Fault`, in the order of `model.variables`.
    """
    found = {}
    _collect(model, "", found, set())
    checked = (_fault(*each) for each in found.values())
    return [fault for fault in checked if fault is not None]


def describe_invalid_weights(faults):
    """The first faults in words, and how to mend them."""
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    received = [
        f"{f.path}/{f.variable}{list(f.index) or ''}={f.value:g}"
        for f in faults[:3]
    ]
    return (
        f"{'; '.join(map(str, faults[:3]))}{more}. Load weights from before "
        "training failed, or assign finite values (positive ones to a "
        f"variance). Received: {', '.join(received)}"
    )


def _collect(layer, path, found, seen):
    """Fills a dict from id to variable with its layer, the innermost one."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for variable in layer.variables:
        found[id(variable)] = path or layer.name, layer, variable
    for child in graph.direct_layers(layer):
        _collect(child, f"{path}/{child.name}".lstrip("/"), found, seen)


def _fault(path, layer, variable):
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
