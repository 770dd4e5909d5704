"""Pictures of annotated and detected boxes for docs/results.md."""

import json

from recipes import atomic_io
from recipes.detection import visualization
from recipes.detection.datasets import registry
from recipes.detection.evaluator import PREDICTIONS

# Number of images per split, and the split's name.
SPLITS = {"train": (12, "training"), "evaluation": (8, "held-out")}
DPI, QUALITY = 100, 72


def save_pictures(config, path):
    """Writes pictures of a run that evaluated both splits.

    Args:
        config: The `DetectionConfig` of the run.
        path: Path of the JPEG file.
    """
    source = registry.open_source(config)
    rows, names = [], []
    for split, (count, name) in SPLITS.items():
        found = json.loads((config.folder / PREDICTIONS[split]).read_text())
        some = visualization.select_images(
            getattr(source, split), source, found, count
        )
        rows += some
        names += [name] * len(some)
    columns = map(list, zip(*rows, strict=True))
    figure = visualization.draw(*columns, source.class_names)
    for axes, name in zip(figure.axes, names, strict=True):
        axes.title.set_text(f"{name} {axes.get_title()}")
    with atomic_io.atomic_file(path) as partial:
        figure.savefig(partial, dpi=DPI, pil_kwargs={"quality": QUALITY})
