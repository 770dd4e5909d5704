"""Measures whether a model trained on two replicas survives saving.

Trains a small network on digits with two replicas on a CPU, evaluates it, saves
it, loads it on one device and evaluates again. A correct layer gives the same
loss twice. Prints means and sample standard deviations over seeds.

  python benchmarks/replicas.py
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from rich.progress import track  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

import keras_norm  # noqa: E402
from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes import atomic_io  # noqa: E402

NUM_REPLICAS = 2
EPOCHS = 4
REPLICA_BATCH_SIZE = 4
LAYERS = {
    "keras.layers.BatchNormalization": keras.layers.BatchNormalization,
    "keras_norm.BatchNormalization": keras_norm.BatchNormalization,
    "keras_norm.RBN": keras_norm.RBN,
    "keras_norm.FRN": keras_norm.FRN,
}


def build(layer, seed):
    keras.utils.set_random_seed(seed)
    blocks = []
    for filters in (16, 32, 64):
        blocks += [
            keras.layers.Conv2D(filters, 3, padding="same"),
            layer(),
            keras.layers.ReLU(),
        ]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *blocks, *head])


def measure(layer, seed, folder):
    """Measures held-out loss and accuracy before and after reloading."""
    digits = load_digits()
    images = (digits.images[..., None] / 8 - 1).astype("float32")
    train = tf.data.Dataset.from_tensor_slices(
        (images[:1400], digits.target[:1400])
    ).batch(NUM_REPLICAS * REPLICA_BATCH_SIZE, drop_remainder=True)
    held_out = tf.data.Dataset.from_tensor_slices(
        (images[1400:1792], digits.target[1400:1792])
    ).batch(56)
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(NUM_REPLICAS)],
        tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        model = build(layer, seed)
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    model.fit(train, epochs=EPOCHS, verbose=0)
    before = model.evaluate(held_out, verbose=0)
    model.save(folder / "model.keras")
    reloaded = keras.saving.load_model(folder / "model.keras")
    return before, reloaded.evaluate(held_out, verbose=0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--num_seeds", type=int, default=5)
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_REPLICAS
    )
    rows = []
    # The layers take turns, so that an interrupted run has some of each.
    runs = [(s, name) for s in range(options.num_seeds) for name in LAYERS]
    for seed, name in track(runs, "training"):
        with tempfile.TemporaryDirectory() as folder:
            before, after = measure(LAYERS[name], seed, pathlib.Path(folder))
        row = {"layer": name, "seed": seed}
        for when, values in (("trained", before), ("reloaded", after)):
            row[when] = dict(zip(("loss", "accuracy"), values, strict=True))
        rows.append(row)
    content = {
        "command": "python benchmarks/replicas.py",
        "environment": layers_report.environment(),
        "rows": rows,
    }
    print(tables.replicas(content))
    if options.json:
        atomic_io.write_text(
            pathlib.Path(options.json), json.dumps(content, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
