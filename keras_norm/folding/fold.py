"""Folds batch normalization: plan, rebuild, verify, report."""

from keras_norm import _keras_internals
from keras_norm.conversion import entries
from keras_norm.conversion import invalid_weights
from keras_norm.conversion import layer_predicates
from keras_norm.conversion import plan as plan_lib
from keras_norm.conversion.find_layers import find_layers
from keras_norm.conversion.rebuild import rebuild_model
from keras_norm.conversion.select_layers import select_layers
from keras_norm.conversion.verify import verify_conversion
from keras_norm.errors import ConversionError
from keras_norm.folding.affine import folds_when_constant
from keras_norm.folding.edits import make_edits
from keras_norm.folding.planner import Planner
from keras_norm.folding.report import FOLDED
from keras_norm.folding.report import FoldEntry
from keras_norm.folding.report import FoldReport
from keras_norm.folding.time_distributed import inner_layer


def fold(model, *, include=None, exclude=None, verify=True, inputs=None):
    """Moves the batch normalization of a model into neighboring layers.

    At inference, batch normalization multiplies each channel by a factor and
    adds an offset. Both move into the weights of the convolution or dense
    layers before it or behind it, and the layer disappears:

        factor = gamma / sqrt(moving_variance + epsilon)
        offset = beta - moving_mean * factor

        backward:  kernel * factor,  bias * factor + offset
        forward:   kernel * factor,  bias + sum(kernel * offset)

    with `(C,)` values along the output channels of the layer before, or along
    the input channels of the layer behind. Weights are folded in float64 and
    cast once. Folding looks through dropout, pooling, padding, reshaping,
    concatenation and nested models where that is exact. A convolution with
    `padding="same"` that takes an offset is padded by a `ConstantPadding` with
    `-offset / factor`, so that the border stays right.

    The outputs at inference stay, up to rounding. Training the folded model
    further trains another network. The original model is not changed. The new
    model is not compiled, and loads without this package unless it contains a
    layer of it.

    Args:
        model: Functional or Sequential Keras model, not the path of a file.
        include: Batch normalizations to fold, in the forms that
            `keras_norm.convert` takes. None for all.
        exclude: Batch normalizations to keep, in the same forms.
        verify: Whether to compare both models on random inputs, and on
            `inputs`. A difference above 1e-5 of the largest output raises an
            error; for models that compute in float16 or bfloat16, above 0.05.
            NaN and infinity always raise an error.
        inputs: Arrays to verify on, in the nested structure of the model's
            inputs.

    Returns:
        `(folded, report)`: a new model and a `FoldReport`, which lists each
        layer that stays with its reason.

    Raises:
        ConversionError: for a model without batch normalization or without a
            functional graph, a selection that matches nothing or only layers
            outside the graph, invalid weights, or a failed verification. It is
            a ValueError with a message of one line.

    Example:

    >>> import keras, keras_norm
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 3)),
    ...         keras.layers.Conv2D(4, 3, use_bias=False),
    ...         keras.layers.BatchNormalization(),
    ...         keras.layers.ReLU(),
    ...     ]
    ... )
    >>> folded, report = keras_norm.fold(model)
    >>> [type(layer).__name__ for layer in folded.layers]
    ['Conv2D', 'ReLU']
    >>> len(report.folded), len(report.kept)
    (1, 0)

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for
        Efficient Integer-Arithmetic-Only Inference", CVPR 2018,
        https://arxiv.org/abs/1712.05877, section 3.2, for backward folding.
    """
    planner, report = _plan(model, include, exclude)
    edits, notes = make_edits(planner)
    report.notes += notes
    report.num_paddings = _count_paddings(edits)
    folded, _ = rebuild_model(model, edits)
    if verify or inputs is not None:
        verify_conversion(model, folded, report, inputs, invalid=[])
    return folded, report


def plan_folding(model, *, include=None, exclude=None):
    """Returns the `FoldReport` of a folding without carrying it out.

    Args: See `fold`.
    """
    planner, report = _plan(model, include, exclude)
    edits, notes = make_edits(planner)
    report.notes += notes
    report.num_paddings = _count_paddings(edits)
    return report


def uses_package(model):
    """Returns True if a model contains layers of this package."""
    return any(
        type(layer).__module__.startswith("keras_norm.")
        for layer in _keras_internals.all_layers(model)
    )


def _plan(model, include, exclude):
    plan_lib.check_model(model)
    plan_lib.require_graph(model)
    graphs, found = find_layers(model, _is_listed)
    # A norm inside TimeDistributed is listed as its wrapper.
    inside = {id(inner_layer(f.layer)) for f in found if f.node is not None}
    found = [f for f in found if f.node or id(f.layer) not in inside]
    if not found:
        raise ConversionError(
            f"{model.name!r} has no batch normalization: nothing to fold."
        )
    selected = select_layers(
        [(f.path, inner_layer(f.layer)) for f in found], include, exclude
    )
    _check_reachable(found, selected)
    invalid = invalid_weights.find_invalid_weights(model)
    if invalid:
        description = invalid_weights.describe_invalid_weights(invalid)
        raise ConversionError(f"{model.name!r} cannot be folded: {description}")
    planner = Planner(model)
    results = planner.run(
        [
            item.layer
            for item in found
            if item.node is not None
            and id(inner_layer(item.layer)) in selected
            and folds_when_constant(inner_layer(item.layer))
        ]
    )
    report = FoldReport(
        model=model.name,
        entries=[_entry(item, selected, results) for item in found],
        notes=plan_lib.model_notes(model, graphs, invalid),
    )
    return planner, report


def _is_listed(layer):
    layer = inner_layer(layer)
    return layer_predicates.is_batch_norm(layer) or folds_when_constant(layer)


def _check_reachable(found, selected):
    chosen = [f for f in found if id(inner_layer(f.layer)) in selected]
    if any(item.node is not None for item in chosen):
        return
    listed = "; ".join(f"{item.path} ({item.reason})" for item in chosen[:5])
    raise ConversionError(
        "No functional graph leads to the batch normalization to fold: "
        f"{listed}. Fold the inner model or layer by itself, or build it into "
        "the graph."
    )


def _entry(item, selected, results):
    direction, into, reason = None, (), item.reason
    action = entries.KEPT
    if id(inner_layer(item.layer)) not in selected:
        reason = "left out by include or exclude"
    elif item.node is None:
        action = entries.UNREACHABLE
    else:
        direction, result = results[id(item.layer)]
        if direction is None:
            reason = result
        else:
            action, into = FOLDED, result
    return FoldEntry(
        path=item.path,
        layer=type(item.layer).__name__,
        shape=None if item.node is None else plan_lib.input_shape(item.node),
        action=action,
        direction=direction,
        into=into,
        reason=reason,
    )


def _count_paddings(edits):
    layers = map(inner_layer, [*edits.before.values(), *edits.calls.values()])
    return len({id(x) for x in layers if type(x).__name__ == "ConstantPadding"})
