"""Float64 NumPy implementations of the layers, from the papers' formulas.

Uses no code of keras_norm and follows the papers' order, not speed.
Channels are the last axis. `weights` maps weight names to arrays.
"""

import numpy as np


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def planes(x):
    return tuple(range(1, x.ndim - 1))


def batch(x):
    return tuple(range(x.ndim - 1))


def masked_mean(x, axes, mask=None):
    if mask is None:
        return x.mean(axis=axes, keepdims=True)
    kept = np.broadcast_to(mask[..., None], x.shape).astype(np.float64)
    total = np.where(kept > 0, x, 0.0).sum(axis=axes, keepdims=True)
    return total / np.maximum(kept.sum(axis=axes, keepdims=True), 1.0)


def group_mean(x, groups, mask=None):
    """The mean over positions and the channels of a group, like `x`."""
    channels = x.shape[-1]
    if groups is None:
        groups = channels
    size = channels // groups
    split = x.reshape(*x.shape[:-1], groups, size)
    if mask is not None:
        mask = np.broadcast_to(mask[..., None], split.shape[:-1])
    axes = (*planes(x), split.ndim - 1)
    mean = masked_mean(split, axes, mask)
    return np.broadcast_to(mean, split.shape).reshape(x.shape)


def frn(x, weights, epsilon=1e-6, mask=None, groups=None, subtract_mean=False):
    epsilon = epsilon + np.abs(weights.get("learned_epsilon", 0.0))
    if subtract_mean:
        x = x - group_mean(x, groups, mask)
    nu2 = group_mean(x**2, groups, mask)
    xhat = x / np.sqrt(nu2 + epsilon)
    y = weights.get("gamma", 1.0) * xhat + weights.get("beta", 0.0)
    return np.maximum(y, weights["tau"]) if "tau" in weights else y


def group_norm(x, weights, epsilon=1e-3, mask=None, groups=None):
    channels = x.shape[-1]
    if groups is None:
        groups = max(
            n
            for n in range(1, 33)
            if channels % n == 0 and (n == 1 or channels / n >= 4)
        )
        groups = 1 if x[0].size == channels else groups
    groups = channels if groups == -1 else groups
    mean = group_mean(x, groups, mask)
    variance = group_mean((x - mean) ** 2, groups, mask)
    xhat = (x - mean) / np.sqrt(variance + epsilon)
    return weights.get("gamma", 1.0) * xhat + weights.get("beta", 0.0)


def tlu(y, weights, mask=None, max_value=np.inf):
    below = weights.get("alpha", 0.0) * y + weights["tau"]
    return np.minimum(np.maximum(y, below), max_value)


def batch_norm(x, weights, epsilon=1e-3, training=True, mask=None):
    mean, variance = weights["moving_mean"], weights["moving_variance"]
    if training:
        mean = masked_mean(x, batch(x), mask)
        variance = masked_mean((x - mean) ** 2, batch(x), mask)
    xhat = (x - mean) / np.sqrt(variance + epsilon)
    return weights.get("gamma", 1.0) * xhat + weights.get("beta", 0.0)


def eval_norm(x, weights, epsilon=1e-3, training=True, mask=None):
    if training:
        return batch_norm(x, weights, epsilon, True, mask)
    a, b = weights["mean_mix"], weights["variance_mix"]
    own_mean = masked_mean(x, planes(x), mask)
    own_variance = masked_mean((x - own_mean) ** 2, planes(x), mask)
    mean = a * own_mean + (1 - a) * weights["moving_mean"]
    variance = (
        b * own_variance
        + (1 - b) * weights["moving_variance"]
        + a * (1 - a) * (own_mean - weights["moving_mean"]) ** 2
    )
    xhat = (x - mean) / np.sqrt(variance + epsilon)
    return weights.get("gamma", 1.0) * xhat + weights.get("beta", 0.0)


def statistic(kind, x, mask):
    mean = masked_mean(x, planes(x), mask)
    if kind == "mean":
        return mean
    if kind == "std":
        return np.sqrt(masked_mean((x - mean) ** 2, planes(x), mask))
    return x.max(axis=planes(x), keepdims=True)


def rbn(
    x,
    weights,
    epsilon=1e-3,
    training=True,
    center_statistic="mean",
    scale_statistic="mean",
    statistics="batch",
    groups=None,
    mask=None,
):
    if center_statistic:
        level = statistic(center_statistic, x, mask)
        x = x + weights["center_weight"] * level
    if statistics == "batch":
        plain = {k: weights[k] for k in ("moving_mean", "moving_variance")}
        x = batch_norm(x, plain, epsilon, training, mask)
    else:
        x = frn(x, {}, epsilon, mask, groups, subtract_mean=True)
    if scale_statistic:
        level = statistic(scale_statistic, x, mask)
        x = x * sigmoid(weights["scale_weight"] * level + weights["scale_bias"])
    return weights.get("gamma", 1.0) * x + weights.get("beta", 0.0)


def moving(old, new, momentum):
    return momentum * old + (1.0 - momentum) * new


def gradients(function, arguments, upstream, step=1e-6):
    """Central differences of `sum(upstream * function(arguments))`.

    Args:
        function: Takes a dict of float64 arrays, returns an array.
        arguments: Dict of arrays.
        upstream: Array of the shape that `function` returns.

    Returns:
        Dict of arrays, the gradient in each argument.
    """
    result = {}
    for name, value in arguments.items():
        gradient = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1.0, -1.0):
                moved = value.copy()
                moved[index] += sign * step
                output = function({**arguments, name: moved})
                sides.append(np.sum(upstream * output))
            gradient[index] = (sides[0] - sides[1]) / (2.0 * step)
        result[name] = gradient
    return result
