"""Comparison of image sizes with the annotations, before a run.

Of every image this is checked again when it is read, see `boxed`.
"""

import os

import tensorflow as tf

from recipes.data import decode_errors
from recipes.detection.datasets import annotations
from recipes.errors import RecipeError

NUM_CHECKED = 32


def check(path, images, columns, skips):
    """Compares some images, evenly out of all, with the annotations.

    Args:
        path: Path of the annotations.
        images: Paths of the images.
        columns: Their `coco_json.Columns`.
        skips: Whether single images of another size are left out later.

    Raises:
        RecipeError: if one is of another size; with `skips` if all of them are.
    """
    step = -(-len(images) // NUM_CHECKED)
    looked_at = range(0, len(images), step)
    sizes = {i: _size(images[i]) for i in looked_at}
    wanted = columns.sizes.tolist()
    wrong = [i for i in looked_at if sizes[i] not in (None, wanted[i])]
    if not wrong or (skips and len(wrong) < len(looked_at)):
        return
    i = wrong[0]
    (height, width), (own_height, own_width) = wanted[i], sizes[i]
    skip = "" if skips else "; --on_bad_image=skip leaves out single others"
    raise RecipeError(
        f"{path}: image {columns.image_ids[i]} should have {width}x{height} "
        f"pixels, but {images[i]} has {own_width}x{own_height}"
        f"{decode_errors.exif_hint(sizes[i], wanted[i])}. {len(wrong)} of "
        f"{len(looked_at)} images looked at are of another size. Boxes must be "
        f"of the images as they are{skip}."
    )


def _size(image):
    """Height and width of an image; None where it cannot be decoded."""
    try:
        encoded = tf.io.read_file(os.fsencode(image))
        return annotations.image_size(encoded).numpy().tolist()
    except tf.errors.OpError:
        return None  # Named when it is read.
