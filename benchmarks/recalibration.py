"""Measures accuracy after recomputing the moving statistics of a network.

Trains ResNet-20 on Fashion-MNIST, then evaluates on all test images:

* with moving statistics replaced by their start values, before and after
  `keras_norm.recalibrate` with several draws of training images;
* on corrupted test images, before and after it with corrupted training images,
  without labels.

  python benchmarks/recalibration.py --data_dir=runs/data
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import numpy as np  # noqa: E402
from rich.progress import track  # noqa: E402

import keras_norm  # noqa: E402
from benchmarks import evidence_data  # noqa: E402
from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes import atomic_io  # noqa: E402

TRAINING = (
    "--dataset=fashion_mnist --model=resnet20_cifar --norm=bn --image_size=28 "
    "--augmentation=none --global_batch_size=128 --learning_rate=0.2 "
    "--train_epochs=3 --warmup_epochs=0.3"
)
SEED = 0
NUM_DRAWS = 5
NUM_IMAGES = (32, 256)
PRIOR = 64
# Method, number of images and prior; a prior keeps the trained statistics.
RESTORED = (
    ("exact", 1000, 0),
    ("batch", 1000, 0),
    ("exact", 256, 0),
    ("exact", 32, 0),
    ("exact", 256, PRIOR),
    ("exact", 32, PRIOR),
)


def _blur(x, generator):
    """Gaussian blur with a standard deviation of 1.5 pixels."""
    del generator
    distance = np.arange(-4, 5)
    kernel = np.exp(-(distance**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        x = np.apply_along_axis(np.convolve, axis, x, kernel, mode="same")
    return x


def _pixelate(x, generator):
    del generator
    small = x.reshape(len(x), 14, 2, 14, 2, 1).mean((2, 4))
    return small.repeat(2, axis=1).repeat(2, axis=2)


def _salt_and_pepper(x, generator):
    drawn = generator.uniform(size=x.shape)
    return np.where(drawn < 0.05, 0.0, np.where(drawn > 0.95, 1.0, x))


# Functions of images in [0, 1], `(N, 28, 28, 1)`, and a generator.
CORRUPTIONS = {
    "inverted": lambda x, _: 1 - x,
    "darkened to 40%": lambda x, _: 0.4 * x,
    "brightened by 50%": lambda x, _: np.minimum(x + 0.5, 1),
    "30% contrast": lambda x, _: 0.3 * (x - 0.5) + 0.5,
    "Gaussian noise, 0.25": lambda x, generator: np.clip(
        x + generator.normal(0, 0.25, x.shape), 0, 1
    ),
    "salt and pepper, 10%": _salt_and_pepper,
    "blurred": _blur,
    "pixelated": _pixelate,
}


def load_splits(data_dir):
    """Returns `(images in [0, 1], labels)` for training and for test."""
    import tensorflow_datasets as tfds

    arrays = []
    for split in ("train", "test"):
        images, labels = tfds.as_numpy(
            tfds.load(
                "fashion_mnist",
                split=split,
                data_dir=data_dir,
                batch_size=-1,
                as_supervised=True,
                download=False,
            )
        )
        arrays.append((images / 255.0, labels))
    return arrays


def scale(images):
    """Scales images from [0, 1] to [-1, 1], as the recipe does."""
    return (2 * images - 1).astype("float32")


def train(data_dir, folder):
    """Trains the network with the recipe; returns the path of its file."""
    subprocess.run(
        [
            sys.executable,
            "recipes/imagenet.py",
            *TRAINING.split(),
            f"--data_dir={data_dir}",
            f"--workdir={folder}",
        ],
        check=True,
    )
    return pathlib.Path(folder) / "model.keras"


def reset_statistics(model):
    """Returns a copy whose moving statistics have their start values."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "moving_mean"):
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.ones(layer.moving_mean.shape))
    return copy


def draw(train_images, seed):
    """Returns the training images of a draw, in order."""
    order = np.random.default_rng(seed).permutation(len(train_images))
    return train_images[order[: max(number for _, number, _ in RESTORED)]]


def accuracy(network, images, labels):
    outputs = network.predict(scale(images), batch_size=500, verbose=0)
    return float(np.mean(outputs.argmax(-1) == labels))


def measure_restored(model, train_images, test_images, labels):
    """Returns the rows of the table of restored statistics."""
    fresh = reset_statistics(model)
    rows = [
        {
            "statistics": name,
            "accuracies": [accuracy(network, test_images, labels)],
        }
        for name, network in (("trained", model), ("start", fresh))
    ]
    for method, number, prior in track(RESTORED, "restoring"):
        accuracies = []
        for seed in range(SEED, SEED + NUM_DRAWS):
            images = draw(train_images, seed)[:number]
            new, _ = keras_norm.recalibrate(
                model if prior else fresh,
                scale(images),
                method=method,
                prior=prior,
            )
            accuracies.append(accuracy(new, test_images, labels))
        rows.append(
            {
                "statistics": method,
                "images": number,
                "prior": prior,
                "accuracies": accuracies,
            }
        )
    return rows


def measure_adapted(model, train_images, test_images, labels):
    """Returns the rows of the table of corruptions, from the first draw."""
    drawn = draw(train_images, SEED)
    rows = []
    kinds = {"none": lambda x, _: x, **CORRUPTIONS}
    for name, corrupt in track(kinds.items(), "adapting"):
        generator = np.random.default_rng(SEED)
        images = corrupt(test_images, generator)
        shifted = scale(corrupt(drawn[: max(NUM_IMAGES)], generator))
        row = {"corruption": name, "before": accuracy(model, images, labels)}
        for number in NUM_IMAGES:
            for prior in (0, PRIOR):
                new, _ = keras_norm.recalibrate(
                    model, shifted[:number], prior=prior
                )
                row[f"{number}/{prior}"] = accuracy(new, images, labels)
        rows.append(row)
    return rows


MEASUREMENTS = {"restored": measure_restored, "adapted": measure_adapted}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data_dir", default="runs/data")
    parser.add_argument(
        "--model", help="a trained network, instead of training"
    )
    parser.add_argument(
        "--only",
        choices=sorted(MEASUREMENTS),
        help="measure this table, and keep the other one of --json",
    )
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    evidence_data.prepare_fashion_mnist(options.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or train(options.data_dir, folder)
        model = keras.saving.load_model(path, compile=False)
    file = pathlib.Path(options.json) if options.json else None
    content = json.loads(file.read_text()) if options.only and file else {}
    content |= {
        "command": "python benchmarks/recalibration.py",
        "training": TRAINING,
        "environment": layers_report.environment(),
        "prior": PRIOR,
        "num_images": NUM_IMAGES,
    }
    (train_images, _), (test_images, labels) = load_splits(options.data_dir)
    images = train_images, test_images, labels
    for name in [options.only] if options.only else MEASUREMENTS:
        content[name] = MEASUREMENTS[name](model, *images)
        print(getattr(tables, name)(content))
    if file:
        atomic_io.write_text(file, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
