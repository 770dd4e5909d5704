"""Reports images that cannot be decoded, and skips them or stops the run.

Decoding fails inside TensorFlow's input threads, where the image's name is not
known. Therefore each image is decoded in a dataset of one element that ignores
errors. Only if that dataset is empty does Python code run, which finds the name
and the reason.
"""

import contextlib
import re
import threading

import tensorflow as tf
from absl import logging

from recipes.data import image_files
from recipes.errors import RecipeError

# Number of names in `BadImages.describe`.
NUM_LISTED = 8

# Message of the TensorFlow error that stops the run.
_UNUSABLE = "an image cannot be used"


class BadImages:
    """Names and errors of the images that a run cannot use.

    Args:
        dataset: Name of the dataset, for error messages.
        on_bad_image: `"fail"` ends the dataset with an error, which
            `explain_errors` turns into a `RecipeError`. `"skip"` replaces the
            image by zeros of weight 0 and logs its name once.
    """

    def __init__(self, dataset, on_bad_image):
        self.dataset = dataset
        self.skips = on_bad_image == "skip"
        self._lock = threading.Lock()
        self._names = {}
        self._failure = None

    def names(self):
        """Returns the names of the images that cannot be used, each once."""
        with self._lock:
            return list(self._names)

    def reason(self, name):
        """Returns why the image of a name cannot be used."""
        with self._lock:
            return self._names.get(name, "cannot be used")

    def describe(self):
        """Describes the skipped images; an empty string if there are none."""
        names = self.names()
        if not names or not self.skips:
            return ""
        listed = ", ".join(names[:NUM_LISTED])
        more = len(names) - NUM_LISTED
        also = f" and {more} more, listed in the workdir" if more > 0 else ""
        plural = "s" if len(names) > 1 else ""
        return (
            f"left out {len(names)} image{plural} "
            f"(--on_bad_image=skip): {listed}{also}"
        )

    @contextlib.contextmanager
    def explain_errors(self):
        """Turns TensorFlow errors about an image into a `RecipeError`."""
        try:
            yield
        except (
            tf.errors.NotFoundError,
            tf.errors.PermissionDeniedError,
        ) as error:
            reason = error.message.partition("{{")[0].splitlines()[0]
            raise RecipeError(
                f"an image of {self.dataset} cannot be read: {reason}. Do not "
                "move images during a run."
            ) from error
        except tf.errors.OpError as error:
            # Other threads may still be adding images.
            if _UNUSABLE not in error.message:
                raise
            raise RecipeError(
                f"an image of {self.dataset} {self._failure}. Remove or fix "
                "it, or skip such images with --on_bad_image=skip."
            ) from error

    def decode_safely(self, decode, data, index, split, size=None):
        """Decodes an image in a graph.

        Args:
            decode: `f(data)` returns uint8 `(height, width, channels)`. Its
                operations are more expensive here than elsewhere, because the
                dataset of one element is created anew for every image.
            data: Scalar string tensor with the encoded image.
            index: Index of the example.
            split: Split with the example. `split.name(index)` describes the
                example, and `split.path(index)` returns its file. `split.path`
                is None for images that are not files.
            size: int64 tensor `(2,)` with the required height and width, or
                None.

        Returns:
            Pixels and weight 1, or zeros and weight 0 for a skipped image.
        """
        expected = tf.zeros(2, tf.int64) if size is None else size

        def decode_checked(data):
            pixels = decode(data)
            if size is None:
                return pixels, 1.0
            same = tf.equal(tf.shape(pixels, tf.int64)[:2], expected)
            check = tf.debugging.Assert(tf.reduce_all(same), ["another size"])
            with tf.control_dependencies([check]):
                return tf.identity(pixels), 1.0

        def record(index, data, expected):
            index = int(index)
            path = split.path and split.path(index)
            reason = _read_error(path) if path and not data else None
            reason = reason or _decode_error(data, expected)
            self._record(split.name(index), reason)
            return self.skips

        def report(data):
            # A Python error would print a stack trace.
            is_skipped = tf.numpy_function(
                record, [index, data, expected], tf.bool
            )
            check = tf.debugging.Assert(is_skipped, [_UNUSABLE])
            with tf.control_dependencies([check]):
                return tf.zeros(shape, tf.uint8), tf.constant(0.0)

        example = tf.data.Dataset.from_tensors(data)
        good = example.map(decode_checked).ignore_errors()
        shape = [side or 1 for side in good.element_spec[0].shape]
        pixels_and_weight = good.concatenate(example.map(report)).take(1)
        return pixels_and_weight.get_single_element()

    def _record(self, name, reason):
        with self._lock:
            is_new = name not in self._names
            self._names[name] = reason
            if not self.skips:
                self._failure = f"{reason}. In {name}"
        if self.skips and is_new:
            logging.warning("skipped an image that %s. In %s", reason, name)


def _read_error(path):
    """Returns a predicate like "cannot be read: ...", or None if it can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _decode_error(data, expected):
    """Returns a predicate that says why an image cannot be used.

    Args:
        data: Bytes of the image.
        expected: Required height and width, or zeros.
    """
    if not data:
        return "cannot be decoded: it is empty"
    if image_files.is_animated_webp(data):
        return f"cannot be decoded: {image_files.ANIMATED_WEBP}"
    try:
        image = image_files.decode(data, 3)
    except tf.errors.OpError as error:
        # Removes TensorFlow's references to graph nodes.
        reason = re.sub(r"{{.*?}}|\[Op:.*", "", error.message).strip(" .")
        reason = reason.removeprefix("jpeg::Uncompress failed. ")
        return f"cannot be decoded: {reason}"
    size = tuple(image.shape[:2])
    if all(expected) and size != tuple(expected):
        height, width = size
        return (
            f"does not match its annotation: it has {width}x{height} pixels "
            f"instead of {expected[1]}x{expected[0]}{exif_hint(size, expected)}"
        )
    return "cannot be decoded: its header does not match its pixels"


def exif_hint(size, expected):
    """Returns a hint if EXIF seems to rotate an image, or an empty string.

    Args:
        size: Height and width of the stored image.
        expected: Annotated height and width.
    """
    if tuple(size) != tuple(expected)[::-1]:
        return ""
    return (
        " (is it rotated by its EXIF orientation? "
        "PIL.ImageOps.exif_transpose rotates the stored pixels)"
    )
