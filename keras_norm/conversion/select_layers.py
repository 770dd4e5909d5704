"""Selects layers to convert by name, class or function."""

import fnmatch
import re

from keras_norm.errors import ConversionError
from keras_norm.errors import did_you_mean


def select_layers(found, include, exclude):
    """Selects batch normalization layers of a model.

    Args:
        found: List of `(path, layer)`.
        include: Layers to convert; None for all. One or a list of: a name or
            path with `*` and `?`, which also matches everything inside a nested
            model; a compiled regular expression, searched for in the path; a
            layer class; a function from a layer to a boolean.
        exclude: Layers to keep, in the same forms; None for none.

    Returns:
        The set of the ids of the selected layers.

    Raises:
        ConversionError: if a pattern matches nothing or is not a valid
            selection, or if no layer is selected.
    """
    selected = {id(layer) for _, layer in found}
    if include is not None:
        selected = _match_all("include", include, found)
    if exclude is not None:
        selected -= _match_all("exclude", exclude, found)
    if not selected:
        raise ConversionError(
            "`exclude` leaves out every layer that `include` selects: nothing "
            f"is left to convert. Received: include={include!r}, "
            f"exclude={exclude!r}"
        )
    return selected


def _match_all(argument, patterns, found):
    if not isinstance(patterns, (list, tuple, set)):
        patterns = [patterns]
    if not patterns:
        raise ConversionError(
            f"`{argument}` is an empty list: pass None to select by nothing. "
            f"Received: {argument}={patterns!r}"
        )
    matched = set()
    for pattern in patterns:
        matches = _make_matcher(argument, pattern)
        hits = {id(layer) for path, layer in found if matches(path, layer)}
        if not hits:
            raise ConversionError(_no_match_message(argument, pattern, found))
        matched |= hits
    return matched


def _make_matcher(argument, pattern):
    """Returns a function `f(path, layer)` that is true for a match."""
    if isinstance(pattern, str):
        return lambda path, _: _matches_name(path, pattern)
    if isinstance(pattern, re.Pattern):
        return lambda path, _: bool(pattern.search(path))
    if isinstance(pattern, type):
        return lambda _, layer: isinstance(layer, pattern)
    if callable(pattern):
        return lambda _, layer: bool(pattern(layer))
    raise ConversionError(
        f"`{argument}` must be a name with * and ?, a regular expression, a "
        "layer class, a function of a layer, or a list of these. "
        f"Received: {argument}={pattern!r}"
    )


def _matches_name(path, pattern):
    segments = path.split("/")
    # The name, the path, and the paths of the nested models that contain it.
    names = [segments[-1]]
    names += ["/".join(segments[: i + 1]) for i in range(len(segments))]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _no_match_message(argument, pattern, found):
    paths = [path for path, _ in found]
    names = [path.split("/")[-1] for path in paths]
    hint = did_you_mean(str(pattern), [*paths, *names])
    shown = ", ".join(paths[:6]) + (", ..." if len(paths) > 6 else "")
    return (
        f"`{argument}` matches no batch normalization.{hint} The model has "
        f"{len(paths)}: {shown}. Received: {argument}={pattern!r}"
    )
