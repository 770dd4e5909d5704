"""Which batch normalizations to convert: by name, by type, by a function."""

import difflib
import fnmatch
import re

from keras_norm.errors import ConversionError


def select_layers(found, include, exclude):
    """Picks out of the batch normalizations that a model has.

    Args:
        found: List of `(path, layer)`.
        include: What to convert; None for all. One of, or a list of: a name or
            path with `*` and `?`, which also names everything below a nested
            model; a compiled regular expression, to be found in the path; a
            layer class; a function from the layer to whether it is meant.
        exclude: What to leave alone, as `include`; None for nothing.

    Returns:
        The set of the ids of the layers that were picked.

    Raises:
        ConversionError: for something that matches nothing, or is no selection,
            or if nothing is left.
    """
    picked = {id(layer) for _, layer in found}
    if include is not None:
        picked = _matched("include", include, found)
    if exclude is not None:
        picked -= _matched("exclude", exclude, found)
    if not picked:
        raise ConversionError(
            "`exclude` takes away everything that `include` names: nothing is "
            f"left to convert. Received: include={include!r}, "
            f"exclude={exclude!r}"
        )
    return picked


def _matched(argument, patterns, found):
    if not isinstance(patterns, (list, tuple, set)):
        patterns = [patterns]
    if not patterns:
        raise ConversionError(
            f"`{argument}` is an empty list. Leave it out to select by nothing."
        )
    matched = set()
    for pattern in patterns:
        test = _test(argument, pattern)
        hits = {id(layer) for path, layer in found if test(path, layer)}
        if not hits:
            raise ConversionError(_nothing(argument, pattern, found))
        matched |= hits
    return matched


def _test(argument, pattern):
    """`f(path, layer)`: whether the pattern means that layer."""
    if isinstance(pattern, str):
        return lambda path, _: _is_named(path, pattern)
    if isinstance(pattern, re.Pattern):
        return lambda path, _: bool(pattern.search(path))
    if isinstance(pattern, type):
        return lambda _, layer: isinstance(layer, pattern)
    if callable(pattern):
        return lambda _, layer: bool(pattern(layer))
    raise ConversionError(
        f"`{argument}` takes a name with * and ?, a regular expression, a "
        "layer class, a function of a layer, or a list of these. "
        f"Received: {argument}={pattern!r}"
    )


def _is_named(path, pattern):
    parts = path.split("/")
    # The name, the path, and the paths of the nested models it lies in.
    names = [parts[-1]]
    names += ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _nothing(argument, pattern, found):
    paths = [path for path, _ in found]
    names = [path.split("/")[-1] for path in paths]
    close = difflib.get_close_matches(str(pattern), [*paths, *names], 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(paths[:6]) + (", ..." if len(paths) > 6 else "")
    return (
        f"`{argument}` matches no batch normalization.{hint} The model has "
        f"{len(paths)}: {shown}. Received: {argument}={pattern!r}"
    )
