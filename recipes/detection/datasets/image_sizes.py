"""Compares image sizes with the annotations before a run starts.

Every image is checked again when it is read, see `preprocessing`.
"""

import os

import tensorflow as tf

from recipes.data import decode_errors
from recipes.detection.datasets import annotations as annotations_lib
from recipes.errors import RecipeError

NUM_CHECKED = 32


def check_sizes(path, images, annotations, skips):
    """Compares evenly spaced images with their annotations.

    Args:
        path: Path of the annotation file.
        images: Paths of the images.
        annotations: The `Annotation` of each image.
        skips: Whether the run skips images whose size differs.

    Raises:
        RecipeError: if the size of an image differs; with `skips`, if the sizes
            of all checked images differ.
    """
    step = -(-len(images) // NUM_CHECKED)
    checked = range(0, len(images), step)
    actual = {i: _read_size(images[i]) for i in checked}
    annotated = {
        i: [annotations[i].height, annotations[i].width] for i in checked
    }
    wrong = [i for i in checked if actual[i] not in (None, annotated[i])]
    if not wrong or (skips and len(wrong) < len(checked)):
        return
    i = wrong[0]
    (height, width), (actual_height, actual_width) = annotated[i], actual[i]
    hint = (
        ""
        if skips
        else ", or skip images whose size differs with --on_bad_image=skip"
    )
    raise RecipeError(
        f"{path}: image {annotations[i].image_id} should have {width}x{height} "
        f"pixels, but {images[i]} has {actual_width}x{actual_height}"
        f"{decode_errors.exif_hint(actual[i], annotated[i])}. The size "
        f"differs in {len(wrong)} of {len(checked)} checked images. Annotate "
        f"the images as they are stored{hint}."
    )


def _read_size(image):
    """Returns `[height, width]`; None if the image cannot be decoded."""
    try:
        encoded = tf.io.read_file(os.fsencode(image))
        return annotations_lib.image_size(encoded).numpy().tolist()
    except tf.errors.OpError:
        return None  # Reported when the image is read.
