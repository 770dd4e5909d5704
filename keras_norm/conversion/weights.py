"""Weights that change their layer: what is copied, created and dropped."""

import dataclasses
import tempfile
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_norm import values as values_lib
from keras_norm.conversion import graph
from keras_norm.errors import ConversionError
from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.frn import FRN
from keras_norm.layers.frn import LEARNED_EPSILON_START
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization

# Weights that calibrate or mix nothing as long as they are zero.
NEUTRAL_AT_ZERO = ("center_weight", "scale_weight", "mean_mix", "variance_mix")
EXACT = "exact"
ROUNDING = "rounding"
CHANGED = "changed"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What becomes of the weights of one replaced layer.

    Attributes:
        values: Array by name, of the new layer's weights that do not keep the
            value they start with.
        copied: Names of weights that mean the same in both layers.
        created: Names of the new layer's other weights.
        dropped: Names of the old layer's other weights.
        function: `"exact"` if the new layer computes the same at inference to
            the last bit, `"rounding"` if it does but for rounding, `"changed"`
            if it does not.
    """

    values: Mapping[str, np.ndarray]
    copied: tuple
    created: tuple
    dropped: tuple
    function: str


def plan_transfer(batch_norm, layer):
    """Plans the weights of a new layer, both layers being built.

    gamma and beta mean the same in every normalization here, the moving moments
    where the new layer has them. A gamma that batch normalization had not is
    ones. Under RBN gamma is divided by what a new calibration multiplies with,
    `R(scale_bias)`, so that the function stays. An epsilon that FRN learns
    starts at the variance.

    Args:
        batch_norm: The layer to replace.
        layer: The layer that replaces it.
    """
    old = {v.name: values_lib.read(v) for v in batch_norm.variables}
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
    """The transfer to a layer that starts a training from nothing."""
    return Transfer(
        values={},
        copied=(),
        created=tuple(v.name for v in layer.variables),
        dropped=tuple(v.name for v in batch_norm.variables),
        function=CHANGED,
    )


def assign_weights(layer, values):
    """Sets weights of a layer by their names."""
    for variable in layer.variables:
        if variable.name in values:
            values_lib.assign(variable, values[variable.name])


def matching_variable(variable, old, new):
    """The variable of a new layer that means what one of the old layer does.

    None if it is not of the old layer, or the new one has no such variable.
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
    """Copies everything that a layer has learned to its copy.

    Raises:
        ConversionError: if the two do not hold the same variables, as after a
            layer was changed in a way that its config does not tell.
    """
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in (old, new)]
    if shapes[0] != shapes[1]:
        raise ConversionError(
            f"{old.name!r} ({type(old).__name__}) made again from its config "
            "has other weights: was it changed after it was built? "
            f"Received: shapes {shapes[0]}, now {shapes[1]}"
        )
    values_lib.copy(old.variables, new.variables)
    for theirs, ours in zip(
        graph.all_layers(old), graph.all_layers(new), strict=True
    ):
        _copy_own_state(theirs, ours)


def _copy_own_state(old, new):
    """Copies what a layer saves in a way of its own, as preprocessing does.

    A Normalization computes with what it derived from its variables when they
    were loaded; a vocabulary is no variable at all.
    """
    if (
        type(new).load_own_variables
        is not keras.layers.Layer.load_own_variables
    ):
        store = {}
        old.save_own_variables(store)
        new.load_own_variables(
            {key: values_lib.read(value) for key, value in store.items()}
        )
    if hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _renorm_values(new, old, epsilon):
    """What Batch Renormalization compares with, from the moving moments."""
    if "renorm_mean" not in new or "renorm_mean" in old:
        return {}
    # The report tells of a variance that is none.
    with np.errstate(invalid="ignore"):
        stddev = np.sqrt(old["moving_variance"] + np.float32(epsilon))
    return {
        "moving_stddev": stddev,
        "renorm_mean": old["moving_mean"],
        "renorm_stddev": stddev,
    }


def _epsilon_values(layer, old, epsilon):
    """The epsilon that FRN learns where a plane has one value, `x`.

    Of `x / sqrt(x^2 + epsilon)` the steepest slope is `1 / sqrt(epsilon)`: with
    the variance that batch normalization had, it is that of before. With 1e-4
    the gradient grows up to a hundredfold a layer: EfficientNetV2L of 32 pixels
    has 96 such layers, and no finite gradient.
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
    # Where the moments are broken, as the report tells, the norm's own start.
    return {"learned_epsilon": start} if 0 < start < np.inf else {}


def _calibration_level(layer):
    """What a new calibration multiplies with, or None if it does not."""
    bias = getattr(layer, "scale_bias", None)
    if bias is None:
        return None
    level = ops.convert_to_numpy(layer.restriction(ops.convert_to_tensor(bias)))
    return level if np.all(np.isfinite(level) & (level != 0)) else None


def _function(batch_norm, layer, new, old, copied):
    neutral = all(
        not np.any(ops.convert_to_numpy(new[name]))
        for name in NEUTRAL_AT_ZERO
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
    is_same_operation = isinstance(
        layer, (BatchNormalization, FrozenBatchNormalization, type(batch_norm))
    )
    # Under a mixed policy Keras rounds gamma and beta, which these do not.
    is_full = batch_norm.compute_dtype == batch_norm.variable_dtype
    return EXACT if is_same_operation and is_full else ROUNDING
