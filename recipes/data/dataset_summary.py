"""Summarizes the images of a dataset."""

from recipes.data.ignored_files import format_count
from recipes.data.ignored_files import join_names

NUM_CLASSES_LISTED = 10


def describe_data(data):
    """Describes the number of images and classes, and the ignored files.

    Args:
        data: `Data` of a run.
    """
    names = data.source.class_names
    classes = f"{len(names):,} class{'es' * (len(names) != 1)}"
    line = (
        f"{data.num_train:,} training and {data.num_eval:,} evaluation images, "
        f"{classes} ({join_names(names, NUM_CLASSES_LISTED)})"
    )
    return "; ".join([line, *data.source.notes])


def describe_images(path, num_images, notes):
    """Describes the images to predict.

    Args:
        path: Path of the images.
        num_images: Number of images.
        notes: List of notes about ignored files.
    """
    line = f"{format_count(num_images, 'image')} in {path}"
    return "; ".join([line, *notes])


def class_metadata(source):
    """Returns the metadata in summary.json that predictions need."""
    return {
        "class_names": list(source.class_names),
        "num_channels": source.num_channels,
        "suited_augmentation": getattr(source, "augmentation", None),
    }
