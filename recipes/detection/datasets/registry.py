"""Opens a detection dataset by its name.

To add a dataset, write a module with a function that returns a `Source`, and
add it to `DATASETS`.
"""

import functools
import pathlib

from etils import epy

# Checking the name of a dataset does not load TensorFlow.
with epy.lazy_imports():
    from recipes.data import tfds_reader
    from recipes.detection.datasets import coco_folder
    from recipes.detection.datasets import tfds
    from recipes.detection.datasets import trees

# Datasets outside TFDS: `f(config)` returns a `Source`.
DATASETS = {"trees": lambda config: trees.open_trees(config.data_dir)}


def open_source(config):
    """Opens the dataset that `config.dataset` names.

    Args:
        config: Config with `dataset`: `"folder:PATH"`, a name in `DATASETS` or
            the name of a TFDS dataset, such as `"coco/2017"`; `data_dir`: path
            of the folder with the prepared datasets, None for the default of
            TFDS; and `on_bad_image`.

    Returns:
        A `Source`.

    Raises:
        RecipeError: if the dataset is unknown or cannot be read or prepared.
    """
    return find_dataset(config)(config)


def find_dataset(config):
    """Returns `f(config)`, which opens the dataset `config.dataset`.

    Raises:
        RecipeError: if the dataset is unknown.
    """
    if config.dataset.startswith("folder:"):
        return _open_folder
    if config.dataset in DATASETS:
        return DATASETS[config.dataset]
    builder = tfds_reader.find_builder(
        config, (*DATASETS, "folder:PATH"), tfds.EXAMPLES
    )
    return functools.partial(tfds.open_dataset, builder=builder)


def _open_folder(config):
    path = config.dataset.partition(":")[2]
    return coco_folder.open_folder(
        pathlib.Path(path).expanduser(), skips=config.on_bad_image == "skip"
    )
