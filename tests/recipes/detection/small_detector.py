"""Builds and runs a small detector on drawn images for tests."""

import json

import keras

import keras_norm
from recipes.config import base as config_lib
from recipes.data import input_pipeline
from recipes.detection.config import DetectionConfig
from recipes.detection.task import ObjectDetection
from recipes.training import runner
from tests.recipes.detection import coco_archive

# Every run measures its input first.
input_pipeline.MEASURED_SECONDS = 0.05

TASK = ObjectDetection()
SIZE = (48, 64)
TINY = {
    "image_size": 64,
    "global_batch_size": 8,
    "train_steps": 3,
    "max_level": 5,
    "pyramid_filters": 8,
    "head_depth": 0,
    "learning_rate": 0.4,
    "virtual_replicas": 1,
    "log_every_steps": 1,
}


def folder(root, num_train=12, num_eval=5):
    """Writes a folder in COCO's layout and returns it as `--dataset`."""
    (root / "annotations").mkdir(parents=True)
    for first, (split, count) in enumerate(
        {"train2017": num_train, "val2017": num_eval}.items()
    ):
        images, content = coco_archive.draw(count, SIZE, 1 + 1000 * first)
        (root / split).mkdir()
        for name, data in images.items():
            (root / split / name).write_bytes(data)
        path = root / "annotations" / f"instances_{split}.json"
        # Three categories are drawn. All 80 would only take time.
        content["categories"] = [
            category
            for category in content["categories"]
            if category["id"] in coco_archive.CATEGORIES
        ]
        path.write_text(json.dumps(content))
    return f"folder:{root}"


def classifier(path, norm="bn", size=32, **arguments):
    """Saves a classifier with feature maps of the strides 8, 16 and 32."""
    norm = keras_norm.get(norm, **arguments)
    inputs = x = keras.Input((size, size, 3))
    for i, strides in enumerate((4, 2, 2, 2)):
        x = keras.layers.Conv2D(
            8, 5, strides=strides, padding="same", use_bias=False
        )(x)
        x = norm.layer(name=f"norm{i}")(x)
        x = norm.activation(name=f"act{i}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(4)(x), name="micro").save(path)
    return str(path)


def arguments(**flags):
    """Returns flags as command-line arguments."""
    return [f"--{name}={value}" for name, value in flags.items()]


def make_config(**flags):
    return config_lib.make_config(DetectionConfig, {**TINY, **flags})


def run_only(workdir, **flags):
    """Runs a config in a workdir."""
    runner.run(make_config(workdir=str(workdir), **flags), TASK)


def run(workdir, **flags):
    """Runs a config and returns the content of summary.json."""
    run_only(workdir, **flags)
    return json.loads((workdir / "summary.json").read_text())
