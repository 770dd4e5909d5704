"""Combines the moving statistics of several copies of a model."""

import numbers

import keras
import numpy as np

from keras_norm import _keras_internals
from keras_norm import variables
from keras_norm.conversion import plan as plan_lib
from keras_norm.conversion.rebuild import rebuild_model
from keras_norm.errors import ConversionError
from keras_norm.recalibration import layer_moments
from keras_norm.recalibration.channel_moments import combine

_STATISTICS = (
    "moving_mean",
    "moving_variance",
    "moving_stddev",
    "renorm_mean",
    "renorm_stddev",
    *layer_moments.MIXING_WEIGHTS,
)


def pool(models, counts, *, average_weights=False):
    """Combines the moving statistics of several copies of a model.

    Use it for federated clients, whose data differs, and for averaged
    checkpoints. With the weights `w_i = counts[i] / sum(counts)`:

        mean     = sum(w_i * mean_i)
        variance = sum(w_i * (variance_i + (mean_i - mean)^2))

    This is the law of total variance: for moments of parts of a dataset it
    gives the moments of the whole. It is exact for a layer whose input does not
    depend on other statistics, such as one at the input or behind the first
    convolution. Inputs of later layers depend on the statistics before them,
    which differ between the models: for exact statistics there, `recalibrate`
    the result, or pool layer by layer with `include`.

    Batch Renormalization's reference values are combined in the same way, and
    the mixing values of `EvalNorm` are averaged.

    Args:
        models: List of at least one Functional or Sequential model with the
            same layers. They are not changed.
        counts: List of the number of examples behind each model.
        average_weights: If True, all other floating-point weights, such as
            kernels, are averaged with the same `w_i`. If False, they must be
            equal.

    Returns:
        A new model, which shares nothing with the others.

    Raises:
        ConversionError: for models with different layers, other weights that
            differ, counts that are negative or all 0, and statistics that are
            not finite. It is a ValueError with a message of one line.

    Example:

    >>> import keras, keras_norm
    >>> low, high = (
    ...     keras.Sequential(
    ...         [
    ...             keras.Input((1,)),
    ...             keras.layers.BatchNormalization(
    ...                 moving_mean_initializer=keras.initializers.Constant(c)
    ...             ),
    ...         ]
    ...     )
    ...     for c in (0.0, 4.0)
    ... )
    >>> pooled = keras_norm.pool([low, high], [3, 1])
    >>> [float(w[0]) for w in pooled.get_weights()[2:]]
    [1.0, 4.0]

    Reference:
        Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance",
        The American Statistician, 1983, equation 2.1.
    """
    models = list(models) if isinstance(models, list | tuple) else [models]
    weights = _check_counts(models, counts)
    for model in models:
        plan_lib.check_model(model)
    _check_same_layers(models)
    layers = list(zip(*map(_layers, models), strict=True))
    if not any(layer_moments.has_statistics(group[0]) for group in layers):
        raise ConversionError(
            f"{models[0].name!r} has no batch normalization: no layer has "
            "moving statistics to pool."
        )
    plan_lib.require_graph(models[0])
    pooled, _ = rebuild_model(models[0])
    for layer, group in zip(_layers(pooled), layers, strict=True):
        if layer_moments.has_statistics(group[0]):
            _pool_layer(layer, group, weights)
    _combine_others(pooled, models, weights, average_weights)
    return pooled


def _layers(model):
    return _keras_internals.all_layers(model)


def _check_counts(models, counts):
    """Returns the counts as an array that sums to 1."""
    is_ordered = not isinstance(counts, set | frozenset | dict)
    try:
        counts = list(counts)
    except TypeError:
        counts = [counts]
    valid = is_ordered and all(
        isinstance(count, numbers.Real) and 0 <= count < np.inf
        for count in counts
    )
    if not models or len(counts) != len(models) or not valid or not sum(counts):
        raise ConversionError(
            "`counts` must have the number of examples behind each model, and "
            "at least one above 0. "
            f"Received: {len(models)} models, counts={counts}"
        )
    return np.asarray(counts, np.float64) / sum(counts)


def _check_same_layers(models):
    """Raises an error if the models do not have the same layers."""

    def describe(model):
        return [
            (type(layer).__name__, v.name, tuple(v.shape))
            for layer in _layers(model)
            if not isinstance(layer, keras.Model)
            for v in layer.variables
        ]

    first = describe(models[0])
    for number, model in enumerate(models[1:], 1):
        other = describe(model)
        if len(_layers(model)) == len(_layers(models[0])) and other == first:
            continue
        pairs = zip(first, other, strict=False)
        mismatch = next((p for p in pairs if p[0] != p[1]), None)
        received = mismatch or (
            f"{len(first)} weights",
            f"{len(other)} weights",
        )
        raise ConversionError(
            "`models` must have the same layers. Received: models[0] with "
            f"{received[0]}, models[{number}] with {received[1]}"
        )


def _pool_layer(layer, group, weights):
    moments = [layer_moments.read_moments(each) for each in group]
    for found in moments:
        layer_moments.check_moments(*found, layer.name)
    mean, variance = combine(*zip(*moments, strict=True), weights)
    layer_moments.assign_moments(layer, mean, variance)
    if getattr(layer, "renorm", False):
        references = [
            [_read(each.renorm_mean), _read(each.renorm_stddev) ** 2]
            for each in group
        ]
        mean, variance = combine(*zip(*references, strict=True), weights)
        variables.assign_copy(layer.renorm_mean, mean)
        variables.assign_copy(layer.renorm_stddev, np.sqrt(variance))
    if layer_moments.mixes_moments(layer):
        for name in layer_moments.MIXING_WEIGHTS:
            values = [_read(getattr(each, name)) for each in group]
            mix = np.array(np.dot(weights, values))
            variables.assign_copy(getattr(layer, name), mix)


def _combine_others(pooled, models, weights, average_weights):
    """Averages all other weights, or requires that they are equal."""
    statistics = {
        id(getattr(layer, name))
        for layer in _layers(pooled)
        if layer_moments.has_statistics(layer)
        for name in _STATISTICS
        if hasattr(layer, name)
    }
    groups = zip(*(model.variables for model in models), strict=True)
    for target, group in zip(pooled.variables, groups, strict=True):
        dtype = keras.backend.standardize_dtype(target.dtype)
        # Counters and states of random generators are the first model's.
        if id(target) in statistics or not keras.backend.is_float_dtype(dtype):
            continue
        values = [_read(variable) for variable in group]
        if average_weights:
            mean = np.tensordot(weights, np.stack(values), axes=1)
            variables.assign_copy(target, mean)
        elif any(np.any(value != values[0]) for value in values[1:]):
            raise ConversionError(
                f"The weight {target.path!r} differs between the models: pass "
                "average_weights=True to average all other weights too. "
                "Received: average_weights=False"
            )


def _read(variable):
    """Returns the value of a variable as a float64 array."""
    return variables.read_copy(variable).astype(np.float64)
