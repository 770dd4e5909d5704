"""Recomputes the moving statistics of a model from data."""

import math
import numbers
import time

import numpy as np

from keras_norm import variables
from keras_norm.conversion import entries
from keras_norm.conversion import plan as plan_lib
from keras_norm.conversion.find_layers import find_layers
from keras_norm.conversion.rebuild import rebuild_model
from keras_norm.conversion.select_layers import select_layers
from keras_norm.data.batches import make_batches
from keras_norm.errors import ConversionError
from keras_norm.graphs.program import Program
from keras_norm.recalibration import layer_moments
from keras_norm.recalibration.equal_batches import EqualBatches
from keras_norm.recalibration.mixing import estimate_mixing
from keras_norm.recalibration.passes import Passes
from keras_norm.recalibration.report import RECALIBRATED
from keras_norm.recalibration.report import RecalibrationReport
from keras_norm.recalibration.report import StatisticsEntry
from keras_norm.recalibration.stages import make_stages
from keras_norm.recalibration.stages import steps_to

METHODS = ("exact", "batch")
# A layer whose input depends on its own statistics is computed again until
# they change by less than this, in standard deviations.
TOLERANCE = 1e-6
MAX_REPETITIONS = 30


def recalibrate(
    model, data, *, method="exact", prior=0, include=None, batch_size=None
):
    """Recomputes the moving statistics of batch normalization from data.

    Use it if moving statistics do not fit the weights or the data: after
    averaging weights, after training with small batches or few steps, and to
    adapt a model to another domain with a few images without labels. The
    original model is not changed: the result is a new model, which shares
    nothing with it and is not compiled.

    Layers with moving statistics are `BatchNormalization` of Keras and of this
    package, also with Batch Renormalization, `FrozenBatchNormalization`, `RBN`
    with batch statistics, and `EvalNorm`. Inference uses their statistics
    whether or not they are trainable or called with `training=False`, so all
    are recomputed. Nested models and shared layers are followed.

    With the values `x` of a channel over all examples and positions, and `N`
    their number:

        moving_mean     = sum(x) / N
        moving_variance = sum((x - moving_mean)^2) / N

    in float64, with centered sums. Positions that a mask excludes do not count,
    and a shared layer gets the moments over all its calls. RBN normalizes, and
    so measures, `x + center_weight * m(x)`. A layer with `variance_correction`
    divides by `N - 1`. Batch Renormalization's own reference values are set to
    the same moments. The two mixing values of `EvalNorm` are estimated so that
    evaluation comes closest to training with batches of the given size; they
    depend on the batches, all other statistics do not.

    Args:
        model: Functional or Sequential Keras model, which is not changed.
        data: Inputs, without labels: an array, or a list or dict of arrays for
            several inputs; a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            torch `DataLoader`, or an iterable of batches. Batches are `x`,
            `(x, y)` or `(x, y, sample_weight)`; only `x` is used. Data that is
            not an array is read several times; an iterator is read once and
            kept in memory. Preprocess the data as for inference, without
            random augmentation.
        method: `"exact"` or `"batch"`.

            * `"exact"`: every layer gets the moments of its own input as it
              occurs at inference, with all layers before it already
              recalibrated, in the order of the graph. The result does not
              depend on the batch size, to the last bit, nor on the order of
              the data, up to the rounding of the last batch: the network runs
              on 32 examples at a time, however they are batched.
            * `"batch"`: one pass in which every layer normalizes each batch by
              the moments of that batch, as in training ("precise batch
              normalization"). Their moments over all batches are combined by
              the law of total variance. All other layers are in inference mode.
              The result depends on the batch size.
        prior: Number of examples that the old statistics count for, at least 0.
            With `w = prior / (prior + number of examples in data)`:

                mean     = w * old_mean + (1 - w) * new_mean
                variance = w * old_variance + (1 - w) * new_variance
                           + w * (1 - w) * (old_mean - new_mean)^2

            An example is an entry of the batch axis, such as an image, whatever
            its number of positions. Defaults to 0: the old statistics do not
            count.
        include: Layers to recalibrate, as in `convert`: a name or path with `*`
            and `?`, a regular expression, a layer class, a function from a
            layer to a boolean, or a list of these. None for all. The others
            keep their statistics.
        batch_size: Number of examples in a batch, only for arrays. None for 32.
            It matters for `method="batch"` and for the mixing values of
            `EvalNorm`, and where 32 examples would need more than 1 GiB of
            activations: then the network runs on this number.

    Returns:
        `(recalibrated, report)`: a new model and a `RecalibrationReport`.

    Raises:
        ConversionError: for a model without a functional graph or without
            moving statistics, a layer outside the graph, an invalid argument,
            data that is empty, endless, of the wrong shape or not finite, and
            for the first layer whose input is not finite. It is a ValueError
            with a message of one line.

    Memory:
        Besides one batch and its activations, at most 1 GiB of activations that
        later passes start from. The report has the number of passes: one for
        each layer in the longest chain of layers.

    Example:

    >>> import keras, keras_norm
    >>> model = keras.Sequential(
    ...     [keras.Input((1,)), keras.layers.BatchNormalization()]
    ... )
    >>> model, report = keras_norm.recalibrate(model, [[1.0], [3.0]])
    >>> [float(w[0]) for w in model.get_weights()[2:]]
    [2.0, 1.0]

    Relations that tests pin:
        `"exact"` equals float64 moments of each layer's own inference input.
        With a single batch of all data, `"batch"` equals `"exact"`.

    Reference:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021,
        https://arxiv.org/abs/2105.07576, section 3, for both methods; Li et
        al., "Adaptive Batch Normalization", 2018, and Schneider et al.,
        "Improving robustness against common corruptions by covariate shift
        adaptation", NeurIPS 2020, for adaptation and the prior.
    """
    plan_lib.check_model(model)
    _check_arguments(method, prior)
    plan_lib.require_graph(model)
    found, selected = _find(model, include)
    batches = make_batches(model, data, batch_size)
    new, _ = rebuild_model(model)
    # The new model has the same layers in the same order.
    pairs = list(zip(found, find_statistics(new), strict=True))
    report = recalibrate_in_place(
        new,
        [copy for item, copy in pairs if id(item.layer) in selected],
        batches,
        method,
        float(prior),
    )
    changed = iter(report.entries)
    report.entries = [
        next(changed) if id(item.layer) in selected else _kept_entry(item)
        for item in found
    ]
    return new, report


def recalibrate_in_place(
    model, found, batches, method, prior, shows_progress=True
):
    """Recomputes statistics of layers of a model, which is changed.

    Args:
        model: Graph model.
        found: List of the `FoundLayer`s to recalibrate, in the graph.
        batches: The `Batches` of the data.
        method, prior: As in `recalibrate`.
        shows_progress: Whether to show a progress bar on a terminal.

    Returns:
        The `RecalibrationReport`, without the layers that are kept.
    """
    started = time.perf_counter()
    layers = [item.layer for item in found]
    paths = {id(item.layer): item.path for item in found}
    old = {id(x): layer_moments.read_moments(x) for x in layers}
    if prior:
        for layer in layers:
            layer_moments.check_moments(*old[id(layer)], paths[id(layer)])
    program = Program(model)
    stages, upstream = make_stages(program, layers)
    if method == "exact" and not any(map(layer_moments.mixes_moments, layers)):
        batches = EqualBatches(batches, program, steps_to(stages, program))
    name = model.name if shows_progress else None
    passes = Passes(program, batches, upstream, paths, name)
    update = _Update(old, paths, prior)
    if method == "batch":
        moments = passes.run_batch_mode(layers)
        update.apply(moments, passes)
    else:
        _run_stages(stages, passes, update)
    return RecalibrationReport(
        model=model.name,
        method=method,
        prior=prior,
        num_examples=passes.num_examples,
        num_passes=passes.num_passes,
        seconds=time.perf_counter() - started,
        entries=[update.entries[id(layer)] for layer in layers],
        notes=update.notes,
    )


def _run_stages(stages, passes, update):
    finished = set()
    for number, stage in enumerate(stages):
        behind = [s for later in stages[number + 1 :] for s in _calls(later)]
        later = behind + (_calls(stage) if stage.recurrent else [])
        for repetition in range(1, MAX_REPETITIONS + 1):
            moments = passes.run_stage(stage, finished, later)
            change = update.apply(moments, passes, repetition)
            if not stage.recurrent or change < TOLERANCE:
                break
        else:
            names = ", ".join(update.paths[name] for name in stage.recurrent)
            update.notes.append(
                f"{names}: the input depends on the layer's own statistics, "
                f"which still change by {change:.1e} standard deviations after "
                f"{MAX_REPETITIONS} passes."
            )
        finished |= set(stage.calls)


class _Update:
    """Assigns new statistics, mixed with the old ones, and lists them.

    Attributes:
        entries: Dict from the ids of layers to `StatisticsEntry`.
        notes: List of remarks.
    """

    def __init__(self, old, paths, prior):
        self.old = old
        self.paths = paths
        self.prior = prior
        self.entries = {}
        self.notes = []

    def apply(self, moments, passes, num_passes=1):
        """Assigns the statistics of some layers.

        Returns:
            The largest change, in standard deviations.
        """
        changes = [
            self._apply(found, passes.num_examples, num_passes)
            for found in moments.values()
        ]
        return max(changes, default=0.0)

    def _apply(self, found, num_examples, num_passes):
        layer = found.layer
        path = self.paths[id(layer)]
        if not found.channels.count.all():
            raise ConversionError(
                f"{path!r} gets no values: a mask excludes every position of "
                f"{np.sum(found.channels.count == 0)} of "
                f"{found.channels.count.size} channels."
            )
        mean, variance = found.channels.mean, found.variance()
        if self.prior:
            mean, variance = layer_moments.mix_in_prior(
                self.old[id(layer)],
                (mean, variance),
                self.prior,
                num_examples,
            )
        before = layer_moments.read_moments(layer)
        layer_moments.assign_moments(layer, mean, variance)
        layer_moments.check_stored(layer, path)
        mixing = {}
        if layer_moments.mixes_moments(layer):
            mixing = self._assign_mixing(found, mean, variance, num_examples)
        shift, ratio = _change(
            self.old[id(layer)], (mean, variance), layer.epsilon
        )
        self.entries[id(layer)] = StatisticsEntry(
            path=path,
            layer=type(layer).__name__,
            action=RECALIBRATED,
            num_values=int(found.channels.count.max()),
            mean_shift=shift,
            variance_ratio=ratio,
            num_passes=num_passes,
            **mixing,
        )
        shift, ratio = _change(before, (mean, variance), layer.epsilon)
        if shift is None:
            return math.inf
        return max(shift, abs(ratio[0] - 1), abs(ratio[1] - 1))

    def _assign_mixing(self, found, mean, variance, num_examples):
        layer = found.layer
        values = estimate_mixing(layer, found.planes, mean, variance)
        mixing = {}
        for name, value in zip(
            layer_moments.MIXING_WEIGHTS, values, strict=True
        ):
            weight = getattr(layer, name)
            share = self.prior / (self.prior + num_examples)
            if share:
                old = float(variables.read_copy(weight))
                value = share * old + (1 - share) * value
            weight.assign(value)
            mixing[name] = value
        return mixing


def _calls(stage):
    return [call for calls in stage.calls.values() for call in calls]


def _change(old, new, epsilon):
    """Returns `(mean shift, variance ratios)`; None if old is not finite."""
    old_mean, old_variance = old
    mean, variance = new
    scale = old_variance + epsilon
    if not (np.all(np.isfinite(old_mean)) and np.all(scale > 0)):
        return None, None
    shift = np.max(np.abs(mean - old_mean) / np.sqrt(scale))
    # A variance and an epsilon of 0 make no ratio.
    ratio = (variance + epsilon) / scale
    if not np.isfinite(shift) or not np.all(np.isfinite(ratio)):
        return None, None
    return float(shift), (float(ratio.min()), float(ratio.max()))


def _check_arguments(method, prior):
    if method not in METHODS:
        raise ConversionError(
            f"`method` must be one of {', '.join(METHODS)}. "
            f"Received: method={method!r}"
        )
    is_number = isinstance(prior, numbers.Real) and not isinstance(prior, bool)
    if not is_number or not 0 <= prior < math.inf:
        raise ConversionError(
            "`prior` must be a number of examples, at least 0. "
            f"Received: prior={prior!r}"
        )


def find_statistics(model):
    """Returns the `FoundLayer`s with moving statistics in a graph model."""
    return find_layers(model, layer_moments.has_statistics)[1]


def _find(model, include):
    """Returns all layers with statistics, and the ids of those to change.

    Raises:
        ConversionError: without such layers, or if a selected one is outside
            the graph.
    """
    found = find_statistics(model)
    if not found:
        raise ConversionError(
            f"{model.name!r} has no batch normalization: no layer has moving "
            "statistics to recalibrate."
        )
    selected = select_layers(
        [(item.path, item.layer) for item in found], include, None
    )
    outside = [
        f"{item.path} ({item.reason})"
        for item in found
        if item.node is None and id(item.layer) in selected
    ]
    if outside:
        shown = "; ".join(outside[:5]) + ("; ..." if len(outside) > 5 else "")
        raise ConversionError(
            f"{len(outside)} layers with moving statistics are outside the "
            f"functional graph: {shown}. Select the others with `include`. "
            f"Received: include={include!r}"
        )
    return found, selected


def _kept_entry(item):
    return StatisticsEntry(
        path=item.path,
        layer=type(item.layer).__name__,
        action=entries.KEPT,
        reason="left out by include",
    )
