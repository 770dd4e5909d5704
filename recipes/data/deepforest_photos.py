"""Aerial photos with boxes around trees, out of the package deepforest.

The package (PyPI, MIT) holds four annotated photos. Only its files are taken:
it is downloaded, not installed.
"""

import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import numpy as np
from PIL import Image

from recipes.errors import RecipeError

PACKAGE = "deepforest"
VERSION = "2.1.0"
FOLDER = "deepforest/data"


@contextlib.contextmanager
def open_wheel(folder=None):
    """The path of the package's wheel, out of a folder or downloaded by pip.

    Args:
        folder: Path of a folder that is looked into first.

    Raises:
        RecipeError: if it cannot be downloaded.
    """
    pattern = f"{PACKAGE}-{VERSION}-*.whl"
    own = sorted(pathlib.Path(folder).glob(pattern)) if folder else []
    if own:
        yield own[0]
        return
    with tempfile.TemporaryDirectory() as downloads:
        wanted = f"{PACKAGE}=={VERSION}"
        options = ("--quiet", "--disable-pip-version-check", "--no-deps")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options]
            + [f"--dest={downloads}", wanted],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            place = f" Its wheel may also lie in {folder}." if folder else ""
            raise RecipeError(
                f"pip cannot download {wanted}, which holds the photos of "
                f"trees: {lines[-1]}.{place}"
            )
        yield next(pathlib.Path(downloads).glob(pattern))


def read_photo(archive, name):
    """A photo and its boxes.

    Args:
        archive: `zipfile.ZipFile` of the wheel.
        name: Of the photo, without folder and ending.

    Returns:
        The photo, uint8 `(height, width, 3)`, and a list of boxes, each left,
        top, right and bottom in whole pixels.
    """
    photo = Image.open(io.BytesIO(archive.read(f"{FOLDER}/{name}.png")))
    root = xml.etree.ElementTree.fromstring(
        archive.read(f"{FOLDER}/{name}.xml")
    )
    sides = ("xmin", "ymin", "xmax", "ymax")
    boxes = [
        [round(float(box.find(side).text)) for side in sides]
        for box in root.iter("bndbox")
    ]
    return np.asarray(photo.convert("RGB")), boxes
