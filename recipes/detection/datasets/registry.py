"""Images with boxes by the name of a dataset, every example by its number."""

import pathlib

from recipes.detection.datasets import coco_folder
from recipes.detection.datasets import tfds
from recipes.detection.datasets import trees
from recipes.detection.datasets.annotations import Annotation
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split

__all__ = ["Annotation", "Source", "Split", "open_source"]


def open_source(config):
    """The source that `config.dataset` names.

    Args:
        config: Has `dataset`: `"folder:PATH"`, `"trees"` or the name of a TFDS
            set, such as `"coco/2017"`; `data_dir`: path of the folder that
            sets are in or are put into, None for that of TFDS; and
            `on_bad_image`.

    Raises:
        RecipeError: if there is no such dataset, or it cannot be had.
    """
    kind, _, path = config.dataset.partition(":")
    if kind == "folder":
        return coco_folder.open_folder(
            pathlib.Path(path).expanduser(),
            skips=config.on_bad_image == "skip",
        )
    if config.dataset == "trees":
        return trees.open_trees(config.data_dir)
    return tfds.open_dataset(config)
