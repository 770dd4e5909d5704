"""Transfers weights to a new layer: copied, created and dropped."""

import dataclasses
import tempfile
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_norm import _keras_internals
from keras_norm import variables as values_lib
from keras_norm.errors import ConversionError
from keras_norm.layers.frn import FRN
from keras_norm.layers.frn import LEARNED_EPSILON_START

EXACT = "exact"
ROUNDING = "rounding"
CHANGED = "changed"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Weights of one replaced layer.

    Attributes:
        values: Dict from names to arrays, of the new layer's weights that do
            not keep their initial value.
        copied: Names of weights with the same meaning in both layers.
        created: Names of the new layer's other weights.
        dropped: Names of the old layer's other weights.
        function: `"exact"` if the new layer gives the same outputs at
            inference, bit for bit, `"rounding"` if it does up to rounding,
            `"changed"` if it does not.
    """

    values: Mapping[str, np.ndarray]
    copied: tuple
    created: tuple
    dropped: tuple
    function: str

    @property
    def is_equivalent(self):
        """True if the new layer gives the same outputs, up to rounding."""
        return self.function != CHANGED


def plan_transfer(batch_norm, layer):
    """Plans the weights of a new layer; both layers are built.

    gamma and beta have the same meaning in every normalization, and so have the
    moving moments if the new layer has them. A gamma that the batch
    normalization lacks is ones. For RBN, gamma is divided by the factor of a
    new calibration, `R(scale_bias)`, which keeps the layer numerically
    equivalent. An epsilon that FRN learns starts at the variance.

    Args:
        batch_norm: The layer to replace.
        layer: The layer that replaces it.
    """
    old = {v.name: values_lib.read_copy(v) for v in batch_norm.variables}
    new = {v.name: v for v in layer.variables}
    copied = [
        name
        for name in new
        if name in old and tuple(new[name].shape) == old[name].shape
    ]
    values = {name: old[name] for name in copied}
    for name, neutral in (("gamma", np.ones), ("beta", np.zeros)):
        if name in new and name not in values:
            values[name] = neutral(new[name].shape, "float32")
    values.update(_renorm_values(new, old, batch_norm.epsilon))
    values.update(_epsilon_values(layer, old, batch_norm.epsilon))
    level = _calibration_level(layer)
    if level is not None and "gamma" in values:
        values["gamma"] = values["gamma"] / level
    return Transfer(
        values=values,
        copied=tuple(copied),
        created=tuple(name for name in new if name not in copied),
        dropped=tuple(name for name in old if name not in copied),
        function=_function(batch_norm, layer, new, old, copied),
    )


def plan_initialization(batch_norm, layer):
    """Plans a newly initialized layer, for training from scratch."""
    return Transfer(
        values={},
        copied=(),
        created=tuple(v.name for v in layer.variables),
        dropped=tuple(v.name for v in batch_norm.variables),
        function=CHANGED,
    )


def assign_weights(layer, values):
    """Assigns values to the weights of a layer, by name."""
    for variable in layer.variables:
        if variable.name in values:
            values_lib.assign_copy(variable, values[variable.name])


def matching_variable(variable, old, new):
    """Returns the new layer's variable that corresponds to an old one.

    Returns None if the variable does not belong to the old layer, or the new
    layer has no such variable.
    """
    if not isinstance(old, keras.layers.Layer):
        return None
    theirs, ours = old.variables, new.variables
    index = next((i for i, v in enumerate(theirs) if v is variable), None)
    if index is None:
        return None
    if type(old) is type(new):
        return ours[index] if len(ours) == len(theirs) else None
    return {v.name: v for v in ours}.get(variable.name)


def copy_weights(old, new):
    """Copies all variables and learned state of a layer to another.

    Args:
        old: Keras layer or model.
        new: The same layer, rebuilt from its config.

    Raises:
        ConversionError: if their variables differ, because the old layer was
            changed in a way that is not in its config.
    """
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in (old, new)]
    if shapes[0] != shapes[1]:
        raise ConversionError(
            f"{old.name!r} ({type(old).__name__}), rebuilt from its config, "
            "has different weights: was it changed after it was built? "
            f"Received: shapes {shapes[0]}, rebuilt as {shapes[1]}"
        )
    values_lib.copy_values(old.variables, new.variables)
    for theirs, ours in zip(
        _keras_internals.all_layers(old),
        _keras_internals.all_layers(new),
        strict=True,
    ):
        _copy_own_state(theirs, ours)


def _copy_own_state(old, new):
    """Copies state that a layer saves with its own methods.

    Preprocessing layers do: a Normalization uses constants that it derives from
    its variables when they are loaded, and a vocabulary is not a variable.
    """
    if (
        type(new).load_own_variables
        is not keras.layers.Layer.load_own_variables
    ):
        store = {}
        old.save_own_variables(store)
        new.load_own_variables(
            {key: values_lib.read_copy(value) for key, value in store.items()}
        )
    if hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _renorm_values(new, old, epsilon):
    """Returns Batch Renormalization's reference values, from the moments."""
    if "renorm_mean" not in new or "renorm_mean" in old:
        return {}
    # The report names an invalid variance.
    with np.errstate(invalid="ignore"):
        stddev = np.sqrt(old["moving_variance"] + np.float32(epsilon))
    return {
        "moving_stddev": stddev,
        "renorm_mean": old["moving_mean"],
        "renorm_stddev": stddev,
    }


def _epsilon_values(layer, old, epsilon):
    """Returns FRN's learned epsilon, for planes of a single value `x`.

    The steepest slope of `x / sqrt(x^2 + epsilon)` is `1 / sqrt(epsilon)`: it
    stays the same if epsilon is the variance of batch normalization. With 1e-4
    the gradient grows up to a hundredfold per layer: EfficientNetV2L for images
    of 32 pixels has 96 such layers, and its gradient overflows.
    """
    if not isinstance(layer, FRN) or layer.learned_epsilon is None:
        return {}
    config = layer.get_config()
    was_given = config["learned_epsilon"] != "auto" or np.any(
        ops.convert_to_numpy(layer.learned_epsilon)
        != np.float32(LEARNED_EPSILON_START)
    )
    if was_given:
        return {}
    start = np.mean(old["moving_variance"]) + epsilon
    # The report names invalid moments; then keep the norm's own value.
    return {"learned_epsilon": start} if 0 < start < np.inf else {}


def _calibration_level(layer):
    """Returns the factor of a new calibration, or None without one."""
    bias = getattr(layer, "scale_bias", None)
    if bias is None:
        return None
    level = ops.convert_to_numpy(layer.restriction(ops.convert_to_tensor(bias)))
    return level if np.all(np.isfinite(level) & (level != 0)) else None


def _function(batch_norm, layer, new, old, copied):
    neutral = all(
        not np.any(ops.convert_to_numpy(new[name]))
        for name in getattr(layer, "neutral_at_zero", ())
        if name in new
    )
    moments_kept = {"moving_mean", "moving_variance"} <= set(copied)
    affine_kept = all(
        name in copied for name in ("gamma", "beta") if name in old
    )
    calibrates = getattr(layer, "scale_bias", None) is not None
    if (
        not (neutral and moments_kept and affine_kept)
        or getattr(layer, "epsilon", None) != batch_norm.epsilon
        or (calibrates and _calibration_level(layer) is None)
    ):
        return CHANGED
    is_same_operation = isinstance(layer, type(batch_norm)) or getattr(
        layer, "infers_as_batch_norm", False
    )
    # Under a mixed policy Keras rounds gamma and beta; these layers do not.
    is_full = batch_norm.compute_dtype == batch_norm.variable_dtype
    return EXACT if is_same_operation and is_full else ROUNDING
