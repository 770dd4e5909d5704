"""Images of a run that cannot be used: named, and skipped or fatal.

An image fails inside of TensorFlow's input threads, where neither its name nor
Python is. So it is decoded within a dataset of one element that ignores errors;
only where nothing comes out does Python run, to find name and reason.
"""

import contextlib
import re
import threading

import tensorflow as tf
from absl import logging

from recipes.data import image_files
from recipes.errors import RecipeError

# Names that `BadImages.describe` lists.
NUM_LISTED = 8

# The message of TensorFlow's error over an image.
_UNUSABLE = "an image cannot be used"


class BadImages:
    """Record of the images that a run could not use. Each run has its own.

    Args:
        dataset: Name of the dataset, for error messages.
        on_bad_image: `"fail"` ends the dataset with an error, which `named`
            words; `"skip"` gives zeros of weight 0 and logs the name once.
    """

    def __init__(self, dataset, on_bad_image):
        self.dataset = dataset
        self.skips = on_bad_image == "skip"
        self._lock = threading.Lock()
        self._names = {}
        self._failure = None

    def found(self):
        """The names of the images that could not be used, each once."""
        with self._lock:
            return list(self._names)

    def reason(self, name):
        """Why an image could not be used, by its name."""
        with self._lock:
            return self._names.get(name, "cannot be used")

    def describe(self):
        """How many images were left out, and which; empty if there are none."""
        names = self.found()
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
    def named(self):
        """Turns TensorFlow's error over an image inside into `RecipeError`."""
        try:
            yield
        except (
            tf.errors.NotFoundError,
            tf.errors.PermissionDeniedError,
        ) as error:
            reason = error.message.partition("{{")[0].splitlines()[0]
            raise RecipeError(
                f"an image of {self.dataset} cannot be read: {reason}. Was it "
                "moved while the run went on?"
            ) from error
        except tf.errors.OpError as error:
            # Threads of this dataset may still note images when this is read.
            if _UNUSABLE not in error.message:
                raise
            raise RecipeError(
                f"an image of {self.dataset} {self._failure}: remove it or put "
                "it right, or go on without it: --on_bad_image=skip."
            ) from error

    def guard(self, decode, data, index, split, size=None):
        """Pixels and their weight: 1, or 0 for zeros of an unusable image.

        Args:
            decode: `f(data)` gives uint8 `(height, width, channels)` in a
                graph. Each of its operations costs more here than elsewhere, as
                the dataset of one element is made anew for every image.
            data: The bytes of the image, a tensor.
            index: The number of the example.
            split: The split that it is of: `split.name(index)` tells where it
                is, and `split.path(index)` the file, where it is one.
            size: int64 tensor `(2,)`, the height and width that the image must
                have; None for any.
        """
        wanted = tf.zeros(2, tf.int64) if size is None else size

        def decode_checked(data):
            pixels = decode(data)
            if size is None:
                return pixels, 1.0
            same = tf.equal(tf.shape(pixels, tf.int64)[:2], wanted)
            check = tf.debugging.Assert(tf.reduce_all(same), ["another size"])
            with tf.control_dependencies([check]):
                return tf.identity(pixels), 1.0

        def note(index, data, wanted):
            index = int(index)
            path = split.path and split.path(index)
            reason = _unreadable(path) if path and not data else None
            self._note(split.name(index), reason or _why(data, wanted))
            return self.skips

        def report(data):
            # An error raised in Python would print its stack.
            goes_on = tf.numpy_function(note, [index, data, wanted], tf.bool)
            check = tf.debugging.Assert(goes_on, [_UNUSABLE])
            with tf.control_dependencies([check]):
                return tf.zeros(shape, tf.uint8), tf.constant(0.0)

        example = tf.data.Dataset.from_tensors(data)
        good = example.map(decode_checked).ignore_errors()
        shape = [side or 1 for side in good.element_spec[0].shape]
        either = good.concatenate(example.map(report)).take(1)
        return either.get_single_element()

    def _note(self, name, reason):
        with self._lock:
            is_new = name not in self._names
            self._names[name] = reason
            if not self.skips:
                self._failure = f"{reason}. In {name}"
        if self.skips and is_new:
            logging.warning("skipped, it %s. In %s", reason, name)


def _unreadable(path):
    """The reason that a file cannot be read, as a predicate; None if it can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _why(data, wanted):
    """The reason that an image cannot be used, as a predicate.

    Args:
        data: The bytes of the image.
        wanted: The height and width that it must have; zeros for any.
    """
    if not data:
        return "cannot be decoded: it is empty"
    if image_files.is_animated_webp(data):
        return f"cannot be decoded: {image_files.ANIMATED_WEBP}"
    try:
        image = image_files.decode(data, 3)
    except tf.errors.OpError as error:
        # TensorFlow's reason, without the places in its graph.
        reason = re.sub(r"{{.*?}}|\[Op:.*", "", error.message).strip(" .")
        reason = reason.removeprefix("jpeg::Uncompress failed. ")
        return f"cannot be decoded: {reason}"
    size = tuple(image.shape[:2])
    if all(wanted) and size != tuple(wanted):
        height, width = size
        return (
            f"is not as annotated: it has {width}x{height} pixels, and its "
            f"annotation says {wanted[1]}x{wanted[0]}{exif_hint(size, wanted)}"
        )
    return "cannot be decoded: its header and its pixels do not go together"


def exif_hint(size, wanted):
    """A hint where an image seems to be turned by EXIF, otherwise nothing.

    Args:
        size: Height and width of the stored image.
        wanted: The height and width that are annotated.
    """
    if tuple(size) != tuple(wanted)[::-1]:
        return ""
    return (
        " (turned by its EXIF orientation? PIL.ImageOps.exif_transpose turns "
        "the stored pixels)"
    )
