"""One line on the images that were found."""

from recipes.data.ignored_files import format_count
from recipes.data.ignored_files import join_names

NUM_CLASSES_LISTED = 10


def describe_data(data):
    """How many images and classes there are, and what is ignored.

    Args:
        data: The `Data` of a run.
    """
    names = data.source.class_names
    classes = f"{len(names):,} class{'es' * (len(names) != 1)}"
    line = (
        f"{data.num_train:,} training and {data.num_eval:,} evaluation images, "
        f"{classes} ({join_names(names, NUM_CLASSES_LISTED)})"
    )
    return "; ".join([line, *data.source.notes])


def describe_images(path, num_images, notes):
    """How many images there are to predict.

    Args:
        path: Where they are.
        num_images: Their number.
        notes: What is ignored.
    """
    line = f"{format_count(num_images, 'image')} in {path}"
    return "; ".join([line, *notes])


def class_metadata(source):
    """Facts on the data that a prediction needs, for summary.json."""
    return {
        "class_names": list(source.class_names),
        "num_channels": source.num_channels,
        "suited_augmentation": getattr(source, "augmentation", None),
    }
