"""Images that cannot be decoded: named, and left out or fatal.

An image fails inside of TensorFlow's input threads, where neither its name nor
Python is. So it is decoded within a dataset of one element that ignores errors;
only where nothing comes out does Python run, to find name and reason.
"""

import contextlib
import re
import threading

import tensorflow as tf
from absl import logging

from recipes.errors import RecipeError


class _Record:
    """What this process has come upon since the last `reset`."""

    def __init__(self):
        self.lock = threading.Lock()
        self.names = {}
        self.failure = None


_record = _Record()


def found():
    """The names of the images that could not be decoded, each once."""
    with _record.lock:
        return list(_record.names)


def reset():
    """Forgets what was found."""
    with _record.lock:
        _record.names.clear()
        _record.failure = None


@contextlib.contextmanager
def named(config):
    """Turns TensorFlow's error over an image inside into a `RecipeError`."""
    reset()
    try:
        yield
    except (tf.errors.NotFoundError, tf.errors.PermissionDeniedError) as error:
        reason = error.message.partition("{{")[0].splitlines()[0]
        raise RecipeError(
            f"an image of {config.dataset} cannot be read: {reason}. Was it "
            "moved while the run went on?"
        ) from error
    except tf.errors.OpError as error:
        if _record.failure is None:
            raise
        raise RecipeError(
            f"an image of {config.dataset} cannot be decoded: "
            f"{_record.failure}: remove it or put it right, or go on without "
            "it: --on_bad_image=skip."
        ) from error


def guard(decode, encoded, index, name, on_bad_image):
    """Pixels and their weight: 1, or 0 for zeros where they cannot be had.

    Args:
        decode: `f(encoded)` gives uint8 `(height, width, channels)` in a graph.
            Each of its operations costs more here than elsewhere, as the
            dataset of one element is made anew for every image.
        encoded: The bytes of the image, a tensor.
        index: The number of the example.
        name: `f(index)` tells where it is.
        on_bad_image: `"fail"` ends the dataset with an error, which `named`
            words; `"skip"` gives zeros of weight 0 and logs the name once.
    """
    example = tf.data.Dataset.from_tensors(encoded)
    good = example.map(lambda data: (decode(data), 1.0)).ignore_errors()
    shape = [size or 1 for size in good.element_spec[0].shape]
    skips = on_bad_image == "skip"

    def note(index, data):
        _note(name(int(index)), _why(data), skips)
        return skips

    def report(data):
        # An error raised in Python would print its stack.
        goes_on = tf.numpy_function(note, [index, data], tf.bool)
        check = tf.debugging.Assert(goes_on, ["an image cannot be decoded"])
        with tf.control_dependencies([check]):
            return tf.zeros(shape, tf.uint8), tf.constant(0.0)

    return good.concatenate(example.map(report)).take(1).get_single_element()


def _note(name, reason, skips):
    with _record.lock:
        is_new = name not in _record.names
        _record.names[name] = reason
        if not skips:
            _record.failure = _record.failure or f"{reason}. In {name}"
    if skips and is_new:
        logging.warning(
            "skipped, it cannot be decoded: %s. In %s", reason, name
        )


def _why(data):
    """TensorFlow's reason, without the places in its graph."""
    if not data:
        return "it is empty"
    try:
        tf.io.decode_image(data, expand_animations=False)
    except tf.errors.OpError as error:
        reason = re.sub(r"{{.*?}}|\[Op:.*", "", error.message).strip(" .")
        return reason.removeprefix("jpeg::Uncompress failed. ")
    return "its header and its pixels do not go together"
