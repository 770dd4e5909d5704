"""Cuts color patches with and without trees from two aerial photos.

The photos and their boxes are part of the package deepforest (PyPI). The first
photo gives training patches and, in its lower quarter, evaluation patches. The
second photo, of another place, gives evaluation patches that look different.
The folders are laid out for --dataset=folder:DIR of recipes/imagenet.py:

  python -m pip download --no-deps --dest=runs deepforest==2.1.0
  python benchmarks/tree_patches.py --wheel=runs/deepforest-2.1.0-...whl
  python recipes/imagenet.py --dataset=folder:runs/data/trees --image_size=32
"""

import argparse
import os
import pathlib
import sys
import zipfile

import numpy as np
from PIL import Image

if __package__ in (None, ""):
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from recipes.data import deepforest_photos  # noqa: E402

PHOTO = "2019_YELL_2_528000_4978000_image_crop2"
ELSEWHERE = "2019_YELL_2_541000_4977000_image_crop"
SIZE = 32
# Neighboring patches overlap by half.
STRIDE = 16
# Minimum fraction of a patch that boxes cover if it is labeled as a tree, and
# maximum fraction if it is labeled as no tree. Other patches are not used.
TREE, NO_TREE = 0.6, 0.02
# Fraction of the photo, from the top, that is used for training.
TRAIN = 0.75


def covered(shape, boxes):
    """Returns a mask of the pixels inside boxes: bool `(height, width)`.

    Args:
        shape: Height and width of the photo.
        boxes: List of (left, top, right, bottom) in pixels.
    """
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def cut(photo, boxes):
    """Cuts patches with and without trees.

    Args:
        photo: uint8 `(height, width, 3)`.
        boxes: List of (left, top, right, bottom) in pixels.

    Returns:
        Dict from `"tree"` and `"no_tree"` to lists of `(top, patch)`.
    """
    mask = covered(photo.shape[:2], boxes)
    found = {"tree": [], "no_tree": []}
    for top in range(0, photo.shape[0] - SIZE + 1, STRIDE):
        for left in range(0, photo.shape[1] - SIZE + 1, STRIDE):
            place = np.s_[top : top + SIZE, left : left + SIZE]
            fraction = mask[place].mean()
            if fraction >= TREE:
                found["tree"].append((top, photo[place]))
            elif fraction <= NO_TREE:
                found["no_tree"].append((top, photo[place]))
    return found


def balanced(found, seed=0):
    """Selects equal numbers of patches of both labels at random."""
    fewest = min(map(len, found.values()))
    generator = np.random.default_rng(seed)
    chosen = {}
    for label, patches in found.items():
        kept = generator.permutation(len(patches))[:fewest]
        chosen[label] = [patches[i] for i in sorted(kept)]
    return chosen


def split(found, height):
    """Splits patches into an upper and a lower part that do not overlap.

    Args:
        found: Result of `cut`.
        height: Height of the photo.
    """
    border = round(TRAIN * height)
    upper, lower = {}, {}
    for label, patches in found.items():
        upper[label] = [p for p in patches if p[0] + SIZE <= border]
        lower[label] = [p for p in patches if p[0] >= border]
    return upper, lower


def write(wheel, out):
    """Writes the folders trees and trees_elsewhere; returns the counts."""
    with zipfile.ZipFile(wheel) as archive:
        photo, boxes = deepforest_photos.read_photo(archive, PHOTO)
        train, validation = split(cut(photo, boxes), photo.shape[0])
        elsewhere = cut(*deepforest_photos.read_photo(archive, ELSEWHERE))
    parts = {
        "trees/train": balanced(train),
        "trees/validation": balanced(validation),
        "trees_elsewhere/validation": balanced(elsewhere),
    }
    counts = {}
    for part, found in parts.items():
        for label, patches in found.items():
            name = f"{part}/{label}"
            folder = pathlib.Path(out) / name
            folder.mkdir(parents=True, exist_ok=True)
            for i, (_, patch) in enumerate(patches):
                Image.fromarray(patch).save(folder / f"{i:05d}.png")
            counts[name] = len(patches)
    # The recipe requires training images, which an evaluation does not use.
    link = pathlib.Path(out) / "trees_elsewhere" / "train"
    if not link.exists():
        link.symlink_to(os.path.join("..", "trees", "train"))
    return counts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--wheel", required=True, help="wheel of deepforest 2.1.0"
    )
    parser.add_argument(
        "--out",
        default="runs/data",
        help="folder to write trees and trees_elsewhere to",
    )
    options = parser.parse_args()
    try:
        counts = write(options.wheel, options.out)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        print(
            f"error: {options.wheel} cannot be read: {error}", file=sys.stderr
        )
        sys.exit(1)
    for name, count in counts.items():
        print(f"{count:6,} {name}")


if __name__ == "__main__":
    main()
