"""Lowers the epsilon of FRN layers while they are trained."""

import contextlib
import dataclasses

import numpy as np

from keras_norm import variables
from keras_norm.layers.frn import FRN

# Ratio of epsilon to the mean square from which it is lowered.
FIRST_RATIO = 1.0
# Ratio that it falls to before it becomes its final value.
LAST_RATIO = 1e-3
# Share of the training in which it is lowered.
SHARE = 0.6
# The smallest learned epsilon: the gradient of |0| is 0.
SMALLEST = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class AnnealedLayer:
    """An FRN layer whose epsilon is lowered.

    Attributes:
        layer: The FRN layer, with a learned epsilon.
        mean_square: Array `(C,)`, the mean of `nu2` over examples.
        ratio: Final ratio of epsilon to the mean square.
    """

    layer: FRN
    mean_square: np.ndarray
    ratio: float


class EpsilonSchedule:
    """Lowers epsilon geometrically, and rescales gamma.

    With `m` the mean square of a channel, epsilon goes from `e` to `e'` with

        gamma' = gamma * sqrt((m + e') / (m + e))

    so that a channel of mean square `m` is scaled as before.

    Args:
        layers: List of `AnnealedLayer`.
    """

    def __init__(self, layers):
        self.layers = [x for x in layers if x.ratio < FIRST_RATIO]

    @contextlib.contextmanager
    def frozen(self):
        """Keeps the optimizer from changing epsilon."""
        weights = [each.layer.learned_epsilon for each in self.layers]
        before = [weight.trainable for weight in weights]
        for weight in weights:
            weight.trainable = False
        try:
            yield
        finally:
            for weight, trainable in zip(weights, before, strict=True):
                weight.trainable = trainable

    def set_progress(self, progress):
        """Sets epsilon for a part of the training.

        Args:
            progress: Share of the steps that are done, in [0, 1].

        Returns:
            True if every epsilon has its final value.
        """
        if not self.layers:
            return True
        is_final = progress >= SHARE
        falling = FIRST_RATIO * (LAST_RATIO / FIRST_RATIO) ** (progress / SHARE)
        for each in self.layers:
            ratio = each.ratio if is_final else max(falling, each.ratio)
            _set_ratio(each, ratio)
        return is_final


def assign_epsilon(layer, values):
    """Sets FRN's whole epsilon, the fixed one and the learned one.

    Args:
        layer: FRN layer with a learned epsilon.
        values: Array `(C,)`. A learned epsilon for all channels gets the mean.
    """
    learned = np.maximum(values - layer.epsilon, SMALLEST)
    if len(layer.learned_epsilon.shape) == 0:
        learned = learned.mean()
    variables.assign_copy(layer.learned_epsilon, learned)


def copy_epsilon(source, layer):
    """Gives another FRN layer the epsilon of an `AnnealedLayer`.

    Its gamma, which was copied, is rescaled if it has one epsilon for all
    channels.
    """
    learned = variables.read_copy(source.layer.learned_epsilon)
    assign_epsilon(layer, source.layer.epsilon + np.abs(learned))
    target = dataclasses.replace(source, layer=layer)
    _rescale(target, _scale(target) / _scale(source))


def _set_ratio(each, ratio):
    old = _scale(each)
    assign_epsilon(each.layer, ratio * each.mean_square)
    _rescale(each, _scale(each) / old)


def _rescale(each, factor):
    gamma = next((v for v in each.layer.variables if v.name == "gamma"), None)
    if gamma is not None:
        variables.assign_copy(gamma, variables.read_copy(gamma) * factor)


def _scale(each):
    """Returns the divisor of a channel of mean square `m`, an array `(C,)`."""
    learned = np.abs(variables.read_copy(each.layer.learned_epsilon))
    return np.sqrt(each.mean_square + each.layer.epsilon + learned)
