"""Analyzes the learned weights of normalization layers and RBN calibration.

A layer is identified by its path: the names of the models and layers around it
and its own name, such as "backbone/stage1/rbn_3". A layer in several places has
the first path; a second layer with the same path becomes "rbn (layer 2)".
`include` is a list of paths or parts of them, "stage1" or "stage1/rbn_3", or a
function from path to bool. The plots need matplotlib, accept the returned dict
or a part of it, and return a `Figure`.
"""

import contextlib
import inspect
import itertools

import keras
import numpy as np

from keras_norm import _keras_internals
from keras_norm.layers._calibration import CalibrationMixin
from keras_norm.layers._channel_layer import ChannelLayer


def learned_values(model, include=None):
    """Returns a dict from path to a dict from weight name to array.

    Contains the weights of built layers without moving moments, and the
    effective `epsilon`, which for FRN is `epsilon + |learned_epsilon|`.

    Example:

    >>> import keras, keras_norm
    >>> from keras_norm import analysis
    >>> frn = keras_norm.FRN(learned_epsilon=True, name="frn")
    >>> model = keras.Sequential([keras.Input((4, 4, 2)), frn])
    >>> f"{analysis.learned_values(model)['frn']['epsilon']:.3e}"
    '1.010e-04'
    """
    values = {}
    layers = _select(model, ChannelLayer, "built keras_norm", include)
    for path, layer in layers.items():
        weights = {weight.name: weight for weight in layer.weights}
        names = [n for n in weights if not n.startswith(("moving_", "renorm_"))]
        arrays = {name: _array(weights[name]) for name in names}
        if hasattr(layer, "epsilon"):
            learned = np.abs(arrays.get("learned_epsilon", 0.0))
            arrays["epsilon"] = np.asarray(layer.epsilon + learned)
        values[path] = arrays
    return values


def calibrations(model, inputs, include=None):
    """Returns a dict from path to RBN features of a batch, channels last.

        before_centering    (batch, ..., C)  x
        after_centering     (batch, ..., C)  x + center_weight * m(x)
        std_before_scaling  (C,)  of x_s, over batch and positions
        std_after_scaling   (C,)  of x_s * R(...), before gamma and beta

    The model runs once with `training=False`, before that once more if it is
    not built, and is left as it was. A layer called again has a further entry,
    "rbn (call 2)". `include` saves memory, two feature maps a call.

    Example:

    >>> import keras, keras_norm
    >>> from keras_norm import analysis
    >>> rbn = keras_norm.RBN(epsilon=0.0, name="rbn")
    >>> model = keras.Sequential([keras.Input((2, 1)), rbn])
    >>> x = keras.ops.array([[[0.0], [2.0]]])
    >>> std = analysis.calibrations(model, x)["rbn"]["std_after_scaling"]
    >>> f"{std[0]:.4f}"  # a new RBN scales by sigmoid(1)
    '0.7311'
    """
    if isinstance(model, keras.Model) and not model.built:
        model(inputs, training=False)
    layers = _select(model, CalibrationMixin, "built RBN", include)
    records = {}
    with contextlib.ExitStack() as stack:
        for path, layer in layers.items():
            own = {k: v for k, v in vars(layer).items() if k == "call"}
            stack.callback(vars(layer).update, own)
            stack.callback(vars(layer).pop, "call")
            vars(layer)["call"] = _recorder(layer, path, records)
        model(inputs, training=False)
    if missing := [p for p in {**layers, **records} if records.get(p) is None]:
        raise ValueError(
            "Every RBN that is included must be called eagerly, without mask. "
            f"Received: include={include!r}, not so called {missing}"
        )
    return records


def plot_learned_values(values, max_layers=8):
    """Plots `learned_values`: one row per layer, one panel per weight."""
    paths, note = _pick(values, max_layers, "layers")
    most = max(len(values[path]) for path in paths)
    figure, grid = _figure("Learned values" + note, len(paths), most, 2.3, 2.2)
    for path, panels in zip(paths, grid, strict=True):
        for panel, name in zip(panels, values[path], strict=False):
            value = values[path][name]
            panel.plot(value.ravel(), ".")
            panel.set(title=name, ylabel="value", visible=True)
            panel.set_xlabel("channel" if value.ndim else "all channels")
            panel.tick_params(axis="x", labelbottom=value.ndim > 0)
            panel.ticklabel_format(scilimits=(-3, 4))
        panels[0].set_title(f"{path}\n", loc="left", fontweight="bold")
    return figure


def plot_scaling(records, max_layers=12):
    """Plots the standard deviations of `calibrations`, one panel per layer."""
    paths, note = _pick(records, max_layers, "layers")
    title = "Standard deviation of each channel around scaling calibration"
    size = -(-len(paths) // 3), min(3, len(paths))
    figure, grid = _figure(title + note, *size, 4.4, 2.8)
    for path, panel in zip(paths, grid.ravel(), strict=False):
        order = np.argsort(records[path]["std_before_scaling"])
        for when in ("before", "after"):
            std = records[path][f"std_{when}_scaling"]
            panel.plot(std[order], ".", label=when)
        panel.set(title=path, xlabel="channel, sorted by the value before")
        panel.set(ylabel="standard deviation", ylim=(0, None), visible=True)
        panel.legend(loc="lower left")
    return figure


def plot_centering(records, path, sample=0, max_channels=6):
    """Plots the feature maps of an example around centering calibration."""
    record = records[path]
    pair = record["before_centering"][sample], record["after_centering"][sample]
    channels, note = _pick(range(pair[0].shape[-1]), max_channels, "channels")
    pair = np.moveaxis(pair, -1, 1)[:, channels]
    shift = pair[1] - pair[0]
    rows = {"before": pair[0], "after": pair[1], "after - before": shift}
    title = f"Sample {sample} around centering calibration\n{path}"
    figure, grid = _figure(title + note, 3, len(channels), 1.6, 1.6)
    for panels, name in zip(grid, rows, strict=True):
        panels[0].set_ylabel(name)
        for panel, channel, x in zip(panels, channels, rows[name], strict=True):
            plane = np.atleast_2d(x).reshape(-1, (1, *x.shape)[-1])
            panel.imshow(plane, aspect="auto" if len(plane) == 1 else "equal")
            panel.set(xticks=[], yticks=[], visible=True)
            panel.set_title(f"channel {channel}")
    limit = np.abs(shift).max()
    for panels, label, colors, *limits in (
        (grid[:2], "feature", "viridis", pair.min(), pair.max()),
        (grid[2:], "difference", "RdBu_r", -limit, limit),
    ):
        images = [panel.images[0] for panel in panels.ravel()]
        for image in images:
            image.set(norm=images[0].norm, cmap=colors, clim=limits)
        figure.colorbar(images[0], ax=panels, label=label)
    return figure


def _figure(title, rows, columns, width, height):
    """Creates a figure and its grid of panels, which are not visible yet."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need it: pip install matplotlib") from error
    size = max(columns * width, 7.0), rows * height + 0.8
    figure = Figure(size, layout="constrained")
    figure.suptitle(title)
    hidden = {"visible": False}
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw=hidden)
    for panel in grid.ravel():
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure, grid


def _pick(items, limit, noun):
    """Returns at most `limit` evenly spaced items and a note on the rest."""
    items = list(items)
    if not items or limit < 1:
        raise ValueError(f"No {noun} to draw. Received: {items}, limit={limit}")
    rest = max(len(items) - limit, 0)
    indices = np.linspace(0, len(items) - 1, len(items) - rest)
    note = f"\n{limit} of {len(items)} {noun}, evenly spaced; {rest} left out"
    return [items[round(i)] for i in indices], note if rest else ""


def _select(model, kind, noun, include):
    """Returns a dict from path to included layer of a class."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    layers = _walk(model, "", {})
    found = [p for p, v in layers.items() if isinstance(v, kind) and v.built]
    parts = [include] if isinstance(include, str) else include
    if include is None or callable(include):
        groups = [[p for p in found if include is None or include(p)]]
    else:
        groups = [[p for p in found if f"/{i}/" in f"/{p}/"] for i in parts]
    if not groups or not all(groups):
        raise ValueError(
            f"`model` must have {noun} layers, and one at least for each part "
            f"of `include`. Received: model={model.name!r} with layers "
            f"{found or list(layers)}, include={include!r}"
        )
    return {p: layers[p] for p in found if any(p in g for g in groups)}


def _walk(layer, folder, found):
    """Adds all layers inside a layer to a dict from path to layer."""
    for child in _keras_internals.direct_layers(layer):
        if child not in found.values():
            path = _free(folder + child.name, found, "layer")
            found[path] = child
            _walk(child, f"{path}/", found)
    return found


def _free(name, taken, noun):
    """Returns the name, or "name (noun 2)" and so on if it is taken."""
    numbered = (f"{name} ({noun} {i})" for i in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def _recorder(layer, path, records):
    """Wraps the layer's `call` to record its features, or None if masked."""
    call, signature = layer.call, inspect.signature(layer.call)

    def recorder(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        masked = given.get("mask") is not None
        record = None if masked else _record(layer, given["inputs"])
        records[_free(path, records, "call")] = record
        return call(*args, **kwargs)

    return recorder


def _record(layer, inputs):
    """Returns the arrays of one call, or None inside a compiled function."""
    features = layer.features(inputs)
    try:
        arrays = {key: _array(value) for key, value in features.items()}
    except (NotImplementedError, TypeError):  # of TensorFlow, of JAX
        return None
    axis, others = layer._channel_axis, (0, *layer._plane_axes)
    return {
        "before_centering": np.moveaxis(arrays["input"], axis, -1),
        "after_centering": np.moveaxis(arrays["centered"], axis, -1),
        "std_before_scaling": arrays["normalized"].std(others, np.float64),
        "std_after_scaling": arrays["scaled"].std(others, np.float64),
    }


def _array(tensor):
    """Copies a tensor to a NumPy array, in float32 or wider."""
    array = keras.ops.convert_to_numpy(tensor)
    return np.array(array, np.result_type(array, np.float32))
