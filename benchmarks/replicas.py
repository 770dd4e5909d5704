"""What a save loses under two replicas: Keras' batch norm against ours.

Trains one small network on digits over two replicas of a CPU, evaluates it,
saves it, loads it on one device and evaluates again. A right layer gives the
same loss twice.

  python benchmarks/replicas.py
"""

import os
import pathlib
import sys
import tempfile

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

import keras_norm  # noqa: E402

NUM_REPLICAS = 2
EPOCHS = 4
REPLICA_BATCH_SIZE = 4
LAYERS = {
    "keras.layers.BatchNormalization": keras.layers.BatchNormalization,
    "keras_norm.BatchNormalization": keras_norm.BatchNormalization,
    "keras_norm.RBN": keras_norm.RBN,
    "keras_norm.FRN": keras_norm.FRN,
}


def build(layer):
    keras.utils.set_random_seed(0)
    blocks = []
    for filters in (16, 32, 64):
        blocks += [
            keras.layers.Conv2D(filters, 3, padding="same"),
            layer(),
            keras.layers.ReLU(),
        ]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *blocks, *head])


def measure(layer, folder):
    """Held-out loss and accuracy before and after a save and a reload."""
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
        model = build(layer)
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
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_REPLICAS
    )
    print("| layer | loss | after reload | accuracy | after reload |")
    print("| --- | --- | --- | --- | --- |")
    for name, layer in LAYERS.items():
        with tempfile.TemporaryDirectory() as folder:
            before, after = measure(layer, pathlib.Path(folder))
        print(
            f"| `{name}` | {before[0]:.4f} | {after[0]:.4f} "
            f"| {before[1]:.2%} | {after[1]:.2%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
