"""Tree or no tree: colour patches cut from two aerial photos.

The photos and their boxes come with the package deepforest (PyPI). Patches of
the first photo are for training and, from its lower quarter, for evaluation;
those of the second, of another place, are an evaluation set whose images look
different. The layout is that of --dataset=folder:DIR of recipes/imagenet.py:

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
# Neighbouring patches share half of their pixels.
STRIDE = 16
# A patch shows a tree where boxes cover that much of it, and none where they
# cover at most that little; what lies between is left out.
TREE, NO_TREE = 0.6, 0.02
# The share of a photo's rows, from above, that is for training.
TRAIN = 0.75


def covered(shape, boxes):
    """Which pixels lie in a box: bool `(height, width)`.

    Args:
        shape: Height and width of the photo.
        boxes: Rows of left, top, right, bottom, in pixels.
    """
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def cut(photo, boxes):
    """Patches with and without trees.

    Args:
        photo: uint8 `(height, width, 3)`.
        boxes: Rows of left, top, right, bottom, in pixels.

    Returns:
        Dict from `"tree"` and `"no_tree"` to lists of `(top, patch)`.
    """
    mask = covered(photo.shape[:2], boxes)
    found = {"tree": [], "no_tree": []}
    for top in range(0, photo.shape[0] - SIZE + 1, STRIDE):
        for left in range(0, photo.shape[1] - SIZE + 1, STRIDE):
            place = np.s_[top : top + SIZE, left : left + SIZE]
            share = mask[place].mean()
            if share >= TREE:
                found["tree"].append((top, photo[place]))
            elif share <= NO_TREE:
                found["no_tree"].append((top, photo[place]))
    return found


def balanced(found, seed=0):
    """As many patches of each label, chosen by the seed."""
    fewest = min(map(len, found.values()))
    generator = np.random.default_rng(seed)
    chosen = {}
    for label, patches in found.items():
        kept = generator.permutation(len(patches))[:fewest]
        chosen[label] = [patches[i] for i in sorted(kept)]
    return chosen


def split(found, height):
    """Patches of the upper part, and of the lower, without a pixel in common.

    Args:
        found: What `cut` gives.
        height: Rows of the photo.
    """
    border = round(TRAIN * height)
    upper, lower = {}, {}
    for label, patches in found.items():
        upper[label] = [p for p in patches if p[0] + SIZE <= border]
        lower[label] = [p for p in patches if p[0] >= border]
    return upper, lower


def write(wheel, out):
    """Makes the folders trees and trees_elsewhere; counts by place."""
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
    # The recipe wants training images too; these are never looked at.
    link = pathlib.Path(out) / "trees_elsewhere" / "train"
    if not link.exists():
        link.symlink_to(os.path.join("..", "trees", "train"))
    return counts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--wheel", required=True, help="the wheel of deepforest 2.1.0"
    )
    parser.add_argument(
        "--out",
        default="runs/data",
        help="folder that trees and trees_elsewhere are made in",
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
