"""Converts a model to another norm: plan, rebuild, verify, report."""

import functools

from keras_norm.calibration.calibrate import Conversion
from keras_norm.calibration.calibrate import Settings
from keras_norm.calibration.calibrate import calibrate
from keras_norm.conversion import new_layer
from keras_norm.conversion import plan as plan_lib
from keras_norm.conversion.rebuild import rebuild_model
from keras_norm.conversion.verify import verify_conversion
from keras_norm.errors import ConversionError
from keras_norm.registry import Norm


def convert(
    model,
    norm,
    *,
    include=None,
    exclude=None,
    activation="auto",
    strict=True,
    verify=False,
    inputs=None,
    fresh=False,
    data=None,
    refit="all",
    epsilon_ratio=0.0,
    distill_steps=0,
    distill_batch_size=32,
    **kwargs,
):
    """Replaces the batch normalization of a model by another normalization.

    The functional graph is rebuilt, including nested models and shared layers,
    and every weight with the same meaning is copied. The original model is not
    changed, and shares nothing with the converted model.

    Names, dtype policies, `trainable`, axes, masks, `training=False` calls,
    regularizers and constraints carry over. The converted model is not
    compiled. A Functional subclass that overrides the constructor is rebuilt as
    a plain Functional model, which the report notes.

    The converted model contains layers of this package: `import keras_norm`
    before `keras.saving.load_model` loads it from a file.

    Args:
        model: Functional or Sequential Keras model with any layers, not the
            path of a file.
        norm: A name in `keras_norm.names()`, a `keras_norm.Norm`, a layer class
            that takes `axis`, or a function from the old layer to a new layer
            that is not built, or to None to keep the old layer.
        include: Batch normalizations to convert: a name or path with `*` and
            `?` (`"conv5_*"`, `"encoder"` for all inside that nested model), a
            compiled regular expression, a layer class, a function from a layer
            to a boolean, or a list of these. None for all.
        exclude: Batch normalizations to keep, in the same forms.
        activation: Policy for ReLUs that follow a replaced layer, directly or
            through an addition of branches, dropout or the end of a nested
            model:

            * `"auto"`: such a ReLU becomes the norm's own activation: `TLU`
              for FRN, the same ReLU for all others. ReLU6 and all other
              activations are kept.
            * `"keep"`: every activation is kept.
            * `"tlu"`: such a ReLU becomes `TLU` under any norm, and a ReLU6
              becomes `TLU(max_value=6)`.

            A ReLU that is also called on other tensors is kept for them. Gates,
            heads and activations that do not follow a replaced layer are never
            changed.
        strict: If True, batch normalization outside the functional graph
            (inside wrappers, composite layers or subclassed layers) raises an
            error. If False, it is kept and listed in the report.
        verify: If True, runs both models on random inputs, and on `inputs`, and
            reports the largest difference. A difference raises an error if the
            report says that the models are numerically equivalent. NaN and
            infinity always raise an error, in weights and in outputs.
        inputs: Arrays to verify on, in the nested structure of the model's
            inputs. Implies `verify`.
        fresh: If True, the converted model is for training from scratch: the
            new layers are newly initialized, with the norm's own momentum and
            epsilon.
        data: Unlabeled examples, 256 or so, preprocessed as in training: any
            data that `recalibrate` takes. The converted model is fitted to the
            outputs of the model's layers on them, front to back, without
            gradients. An eighth of the examples is held out, and the report
            tells how far both models agree on it.
        refit: What is fitted to `data`: `"affine"`, gamma and beta of the new
            norms by least squares; `"next"`, also the convolutions and dense
            layers between them by ridge regression; `"all"`, also the layers
            behind the last norm; `"none"`, nothing.
        epsilon_ratio: Float, for FRN with `data`: a learned epsilon per channel
            starts at this multiple of the mean square of the channel's input.
            The larger it is, the more the layer is the fixed affine map that
            batch normalization is at inference: a scaling of the input by `s`
            scales the output by about `s^(r / (1 + r))`. 0 is the paper's FRN.
        distill_steps: Number of steps, with `data`, of a training towards the
            model's outputs, after the calibration. FRN's epsilon is lowered
            meanwhile. Use thousands of examples for hundreds of steps.
        distill_batch_size: Number of examples in such a step.
        **kwargs: Arguments of every new layer, such as `epsilon` or `groups`.

    Returns:
        `(converted, report)`: a new model and a `ConversionReport`.

    Raises:
        ConversionError: for a model without batch normalization or without a
            functional graph, an unknown norm, an invalid argument, a selection
            that matches nothing, unreachable batch normalization, or a failed
            verification. It is a ValueError with a message of one line.

    Example:

    >>> import keras, keras_norm
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 3)),
    ...         keras.layers.BatchNormalization(name="bn"),
    ...         keras.layers.ReLU(name="relu"),
    ...     ]
    ... )
    >>> converted, report = keras_norm.convert(model, "frn")
    >>> [type(layer).__name__ for layer in converted.layers]
    ['FRN', 'TLU']
    >>> len(report.replaced), report.function
    (1, 'changed')

    Relations that tests pin:
        In float32, conversion to `bn`, `sync_bn`, `brn` and `frozen` keeps the
        outputs bit for bit; conversion to `rbn` and `eval_norm` keeps them up
        to rounding. For RBN, gamma is divided by `R(scale_bias)`.

    Reference:
        Singh and Krishnan, CVPR 2020, for the activations: post-activation
        residual networks have FRN without TLU at the end of a branch, and a TLU
        after the addition.
    """
    plan_lib.check_model(model)
    settings = Settings(refit, epsilon_ratio, distill_steps, distill_batch_size)
    if data is None:
        _check_needs_data(settings)
    norm = new_layer.standardize_norm(norm, kwargs)
    if epsilon_ratio:
        norm = _learn_epsilon(norm, epsilon_ratio)

    def make(norm):
        plan = plan_lib.make_plan(
            model, norm, include, exclude, activation, fresh
        )
        if strict and plan.report.unreachable:
            raise ConversionError(_unreachable_message(plan.report))
        converted, operations = rebuild_model(model, plan)
        return Conversion(converted, plan, operations)

    conversion = make(norm)
    converted, plan = conversion.model, conversion.plan
    if data is not None:
        learning = new_layer.with_learned_epsilon(norm)
        plan.report.calibration = calibrate(
            model,
            conversion,
            data,
            settings,
            None if learning is None else functools.partial(make, learning),
        )
    if verify or inputs is not None:
        verify_conversion(model, converted, plan.report, inputs, plan.invalid)
    return converted, plan.report


def _learn_epsilon(norm, epsilon_ratio):
    """Returns FRN with a learned epsilon; a function of layers as it is."""
    learning = new_layer.with_learned_epsilon(norm)
    if learning is None and isinstance(norm, Norm):
        raise ConversionError(
            "`epsilon_ratio` is for the norm 'frn'. Received: "
            f"norm={norm.name!r}, epsilon_ratio={epsilon_ratio!r}"
        )
    return norm if learning is None else learning


def _check_needs_data(settings):
    """Raises an error if a setting that needs `data` is not the default."""
    for name, default in (
        ("refit", "all"),
        ("epsilon_ratio", 0.0),
        ("distill_steps", 0),
    ):
        value = getattr(settings, name)
        if value != default:
            raise ConversionError(
                f"`{name}` needs `data`, unlabeled examples. "
                f"Received: {name}={value!r}, data=None"
            )


def plan_conversion(
    model,
    norm,
    *,
    include=None,
    exclude=None,
    activation="auto",
    fresh=False,
    **kwargs,
):
    """Returns the report of a conversion without carrying it out.

    Unreachable batch normalization is listed, and does not raise an error.

    Args: See `convert`.

    Returns:
        The `ConversionReport` that `convert(..., strict=False)` would return.

    Raises:
        ConversionError: see `convert`, except for unreachable layers.

    Example:

    >>> import keras, keras_norm
    >>> model = keras.applications.MobileNet(weights=None)
    >>> report = keras_norm.plan_conversion(model, "gn", include="conv_pw_*")
    >>> len(report.replaced), len(report.kept)
    (13, 14)
    """
    plan_lib.check_model(model)
    norm = new_layer.standardize_norm(norm, kwargs)
    return plan_lib.make_plan(
        model, norm, include, exclude, activation, fresh
    ).report


def _unreachable_message(report):
    listed = [f"{e.path} ({e.reason})" for e in report.unreachable]
    shown = "; ".join(listed[:5]) + ("; ..." if len(listed) > 5 else "")
    return (
        f"{len(listed)} batch normalizations are outside the functional graph: "
        f"{shown}. Build the model inside `with keras_norm.norm_scope(...)`, "
        "leave them out with `exclude`, or pass strict=False to keep them."
    )
