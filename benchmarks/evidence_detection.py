"""Pictures of annotated and detected boxes for docs/results.md."""

import json

import PIL.Image
import PIL.ImageDraw

from recipes import atomic_io
from recipes.detection import visualization
from recipes.detection.datasets import registry
from recipes.detection.evaluator import PREDICTIONS

# Number of images per split, and the split's name.
SPLITS = {"train": (12, "training"), "evaluation": (8, "held-out")}
NUM_COLUMNS, SIDE, CAPTION = 4, 250, 20


def save_pictures(config, path):
    """Writes pictures of a run that evaluated both splits.

    Args:
        config: The `DetectionConfig` of the run.
        path: Path of the JPEG file.
    """
    source = registry.open_source(config)
    tiles = []
    for split, (count, name) in SPLITS.items():
        found = json.loads((config.folder / PREDICTIONS[split]).read_text())
        for example in visualization.select_images(
            getattr(source, split), source, found, count
        ):
            tile, caption = visualization.draw(*example, source.class_names)
            tile.thumbnail((SIDE - 4, SIDE - CAPTION))
            tiles.append((tile, f"{name} {caption}"))
    num_rows = -(-len(tiles) // NUM_COLUMNS)
    size = (NUM_COLUMNS * SIDE, num_rows * SIDE)
    figure = PIL.Image.new("RGB", size, "white")
    canvas = PIL.ImageDraw.Draw(figure)
    for i, (tile, caption) in enumerate(tiles):
        left, top = i % NUM_COLUMNS * SIDE, i // NUM_COLUMNS * SIDE
        canvas.text((left, top + 2), caption, "black")
        figure.paste(tile, (left, top + CAPTION))
    with atomic_io.atomic_file(path) as partial:
        figure.save(partial, quality=72)
