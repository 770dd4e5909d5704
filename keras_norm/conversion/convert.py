"""From one model and a norm to another model and a report."""

from keras_norm.conversion import new_layer
from keras_norm.conversion import plan as plan_lib
from keras_norm.conversion import verify as verify_lib
from keras_norm.conversion.rebuild import rebuild_model
from keras_norm.errors import ConversionError


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
    **kwargs,
):
    """Replaces the batch normalization of a model by another normalization.

    The graph of the model is built once more, nested models and shared layers
    included, and every weight that keeps its meaning is copied. The model
    itself is left as it is, and shares nothing with the result.

    Names, dtype policies, `trainable`, axes, masks, `training=False` calls,
    regularizers and constraints carry over. The result is not compiled. A
    subclass of `keras.Model` whose constructor is its own comes back as a plain
    Functional model, which the report says.

    The result holds layers of this package: `import keras_norm` before
    `keras.saving.load_model` reads it from a file.

    Args:
        model: Functional or Sequential Keras model, with any layers in it, not
            its path.
        norm: A name out of `keras_norm.names()`, a `keras_norm.Norm`, a layer
            class that takes `axis`, or a function from the old layer to the
            new one (not built), or to None where the old one stays.
        include: Which batch normalizations to convert: a name or path with `*`
            and `?` (`"conv5_*"`, `"encoder"` for all inside that nested model),
            a compiled regular expression, a layer class, a function from a
            layer to a boolean, or a list of these. None for all.
        exclude: Which to leave alone, in the same forms.
        activation: What becomes of the activations. A ReLU counts as following
            a replaced layer if that is what it is called on, also with an
            addition of branches, dropout or the end of a nested model between.

            * `"auto"`: such a ReLU becomes the norm's own activation: `TLU`
              for FRN, the same ReLU for all others. A ReLU6 and all other
              activations stay.
            * `"keep"`: every activation stays.
            * `"tlu"`: such a ReLU becomes `TLU` under any norm, and a ReLU6
              becomes `TLU(max_value=6)`.

            A ReLU that is called on other tensors as well stays for these.
            Gates, heads and what follows no replaced layer are never touched.
        strict: Whether batch normalization that no graph leads to, inside
            wrappers, composite and subclassed layers, is an error. False to
            keep it and list it in the report.
        verify: Whether to run both models on random inputs, and on `inputs`,
            and to report the largest difference. If the report says that the
            function was kept, a difference is an error. NaN and infinity are an
            error anywhere, in weights and in outputs.
        inputs: Arrays to verify on, as the model takes them. Implies `verify`.
        fresh: Whether the result is to be trained from nothing: new weights in
            the place of batch normalization, and the norm's own momentum and
            epsilon.
        **kwargs: Arguments of every new layer, such as `epsilon` or `groups`.

    Returns:
        `(converted, report)`: a new model and a `ConversionReport`.

    Raises:
        ConversionError: for a model without batch normalization or without a
            graph, an unknown norm, an argument that does not fit, a selection
            that matches nothing, batch normalization that cannot be reached, or
            a verification that failed. It is a ValueError of one line.

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
        To `bn`, `sync_bn`, `brn` and `frozen` the outputs are those of the
        model, bit for bit, in float32; to `rbn` and `eval_norm` up to
        rounding. gamma is divided by `R(scale_bias)` for RBN.

    Reference:
        Singh and Krishnan, CVPR 2020, for what becomes of the activations:
        post-activation residual networks have FRN without TLU at the end of a
        branch, and a TLU after the addition.
    """
    plan_lib.check_model(model)
    norm = new_layer.standardize_norm(norm, kwargs)
    plan = plan_lib.make_plan(model, norm, include, exclude, activation, fresh)
    if strict and plan.report.unreachable:
        raise ConversionError(_unreachable(plan.report))
    converted = rebuild_model(model, plan)
    if verify or inputs is not None:
        verify_lib.verify_conversion(model, converted, plan.report, inputs)
    return converted, plan.report


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
    """The report of a conversion that is not carried out.

    Batch normalization that cannot be reached is listed, not an error.

    Args: As in `convert`.

    Returns:
        The `ConversionReport` that `convert(..., strict=False)` would return.

    Raises:
        ConversionError: as `convert`, but for what cannot be reached.

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


def _unreachable(report):
    listed = [f"{e.path} ({e.reason})" for e in report.unreachable]
    shown = "; ".join(listed[:5]) + ("; ..." if len(listed) > 5 else "")
    return (
        f"{len(listed)} batch normalizations cannot be reached: {shown}. "
        "Build the model inside `with keras_norm.norm_scope(...)`, leave them "
        "out with `exclude`, or pass strict=False to keep them."
    )
