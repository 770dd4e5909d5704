"""An image that cannot be decoded, as one line that names it."""

import contextlib
import pathlib
import re

import tensorflow as tf

from recipes import sources
from recipes.errors import RecipeError

_REASON = re.compile(r"(?:Invalid|Unknown)[^\n\[]*(?:JPEG|PNG|image)[^\n\[]*")


@contextlib.contextmanager
def named(config):
    """Turns TensorFlow's error over an image inside into a `RecipeError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        reason = _REASON.search(str(error))
        if reason is None:
            raise
        raise RecipeError(
            f"an image of {config.dataset} cannot be decoded: "
            f"{reason[0].strip()}{_where(config)}"
        ) from error


def _where(config):
    """The first file of a folder that cannot be decoded."""
    kind, _, root = config.dataset.partition(":")
    if kind != "folder":
        return ""
    for path in sorted(pathlib.Path(root).expanduser().rglob("*")):
        if path.suffix.lower() in sources.IMAGE_ENDINGS:
            try:
                tf.io.decode_image(path.read_bytes(), expand_animations=False)
            except tf.errors.InvalidArgumentError:
                return f" In {path}: remove it or put it right."
    return ""
