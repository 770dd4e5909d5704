"""Prepares a small version of COCO from archives in its format.

Objects are rectangles in front of noise, whose color is their category, which a
small detector can learn. TFDS' own `coco/2017` prepares the archives.
"""

import json
import pathlib
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

# Ids of COCO's 80 categories in the order of its annotation files.
CATEGORY_IDS = (
    *range(1, 12),
    *range(13, 26),
    27,
    28,
    *range(31, 45),
    *range(46, 66),
    67,
    70,
    *range(72, 83),
    *range(84, 91),
)
# Person, car and dog.
CATEGORIES = {1: (220, 40, 40), 3: (40, 200, 60), 18: (50, 70, 230)}
NOISE = (90, 160)
URL = "http://images.cocodataset.org/"


def prepare(data_dir, num_train, num_val, size=(96, 128)):
    """Prepares a small `coco/2017` in a folder.

    Of each split, the first image has a crowd and the last has no object.

    Args:
        data_dir: Path of the folder, `--data_dir` of a run.
        num_train: Number of training images, at least 2.
        num_val: Number of evaluation images, at least 2.
        size: Height and width of the images in pixels.

    Returns:
        Dict from `"train2017"` and `"val2017"` to the content of the annotation
        file of the split.
    """
    data_dir = pathlib.Path(data_dir)
    counts = {"train2017": num_train, "val2017": num_val}
    contents, archives = {}, {}
    for first, (split, count) in enumerate(counts.items()):
        images, contents[split] = draw(count, size, 1000 * first + 7)
        archives[f"zips/{split}.zip"] = {
            f"{split}/{name}": data for name, data in images.items()
        }
    archives["annotations/annotations_trainval2017.zip"] = {
        f"annotations/instances_{split}.json": json.dumps(content).encode()
        for split, content in contents.items()
    }
    images, content = draw(2, size, 5000)
    archives["zips/test2017.zip"] = {
        f"test2017/{name}": data for name, data in images.items()
    }
    del content["annotations"]
    archives["annotations/image_info_test2017.zip"] = {
        "annotations/image_info_test2017.json": json.dumps(content).encode()
    }
    builder = tfds.builder("coco/2017", data_dir=data_dir)
    downloads = data_dir / "downloads"
    for place, files in archives.items():
        _write_archive(
            downloads / "coco", builder.url_infos[URL + place], place, files
        )
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(
        download_dir=downloads, download_config=settings
    )
    return contents


def draw(count, size, seed):
    """Draws images and returns them with their annotations.

    Args:
        count: Number of images. The first has a crowd, the last no object.
        size: Height and width in pixels.
        seed: Random seed, and id of the first image.

    Returns:
        `(images, content)`: dict from file name to the bytes of a JPEG file,
        and the content of the annotation file.
    """
    generator = np.random.default_rng(seed)
    images, rows, annotations = {}, [], []
    for i in range(count):
        pixels = generator.integers(*NOISE, (*size, 3), np.uint8)
        # Ids with gaps, as in COCO.
        image_id = seed + 3 * i
        num_objects = 0 if i == count - 1 else int(generator.integers(1, 4))
        for j in range(num_objects):
            kind = int(generator.choice(list(CATEGORIES)))
            bbox = _paint(pixels, CATEGORIES[kind], generator)
            annotations.append(
                {
                    "id": 10 * len(annotations) + seed,
                    "image_id": image_id,
                    "category_id": kind,
                    "bbox": bbox,
                    "area": float(bbox[2] * bbox[3]),
                    "iscrowd": int(i == j == 0),
                }
            )
        name = f"{image_id:012d}.jpg"
        images[name] = tf.io.encode_jpeg(pixels, quality=95).numpy()
        sides = {"height": size[0], "width": size[1]}
        rows.append({"id": image_id, "file_name": name, **sides})
    categories = [{"id": i, "name": f"category {i}"} for i in CATEGORY_IDS]
    content = {"images": rows, "annotations": annotations}
    return images, {**content, "categories": categories}


def _paint(pixels, color, generator):
    """Paints a random rectangle and returns left, top, width and height."""
    (height, top), (width, left) = (
        _random_extent(generator, side) for side in pixels.shape[:2]
    )
    pixels[top : top + height, left : left + width] = color
    return [left, top, width, height]


def _random_extent(generator, side):
    """Returns a random extent and its start."""
    extent = int(generator.integers(side // 4, side // 2 + 1))
    return extent, int(generator.integers(0, side - extent + 1))


def _write_archive(folder, info, place, files):
    """Writes an archive to the download folder of TFDS.

    Its name contains the checksum of the original archive, which TFDS verifies
    only once, after the download.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / resource.get_dl_fname(URL + place, info.checksum)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    resource.get_info_path(path).write_text(
        json.dumps({"original_fname": info.filename})
    )
