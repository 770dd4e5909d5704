"""Trained networks of several kinds, for benchmarks/conversion.py."""

import functools
import pathlib

import keras
from keras import layers

from benchmarks import recalibration

EPOCHS = 2
RATE = 0.1


def load_data(data_dir):
    """Returns `(images, labels)` in [-1, 1] for training and for test."""
    return [
        (recalibration.scale(images), labels)
        for images, labels in recalibration.load_splits(data_dir)
    ]


def get_teacher(name, folder, data_dir, data):
    """Returns a trained network, from its file if there is one.

    Args:
        name: Key of `NETWORKS`.
        folder: Folder of the files.
        data_dir: Data folder of TFDS.
        data: Training images and labels.
    """
    path = pathlib.Path(folder) / f"{name}.keras"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(0)
        model = NETWORKS[name](folder, data_dir, data)
        model.save(path)
    return keras.saving.load_model(path, compile=False)


def _train_resnet20(folder, data_dir, data):
    del data
    path = recalibration.train(data_dir, pathlib.Path(folder) / "resnet20")
    return keras.saving.load_model(path, compile=False)


def _train(build, folder, data_dir, data):
    del folder, data_dir
    model = build()
    steps = EPOCHS * len(data[0]) // 128
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, int(0.9 * steps), warmup_target=RATE, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(*data, batch_size=128, epochs=EPOCHS, verbose=2)
    return model


def _norm_relu(x, activation=None):
    x = layers.BatchNormalization(momentum=0.9)(x)
    return (activation or layers.ReLU())(x)


def _conv(x, filters, size=3, strides=1):
    return layers.Conv2D(
        filters, size, strides, padding="same", use_bias=False
    )(x)


def _end(inputs, x):
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def build_preactivation():
    """A pre-activation ResNet-14."""
    inputs = keras.Input((28, 28, 1))
    x = _conv(inputs, 16)
    for filters in (16, 32, 64):
        for block in range(2):
            strides = 2 if filters > 16 and not block else 1
            y = _norm_relu(x)
            if x.shape[-1] != filters:
                x = _conv(y, filters, 1, strides)
            y = _norm_relu(_conv(y, filters, 3, strides))
            x = layers.Add()([x, _conv(y, filters)])
    return _end(inputs, _norm_relu(x))


def build_mobilenet():
    """Seven inverted residual blocks with ReLU6, as in MobileNetV2."""
    inputs = keras.Input((28, 28, 1))

    def relu6():
        return layers.ReLU(6.0)

    x = _norm_relu(_conv(inputs, 16), relu6())
    for filters, strides in (
        (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (64, 1), (64, 1)
    ):  # fmt: skip
        y = _norm_relu(_conv(x, 4 * x.shape[-1], 1), relu6())
        y = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(
            y
        )
        y = _norm_relu(y, relu6())
        y = layers.BatchNormalization(momentum=0.9)(_conv(y, filters, 1))
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    return _end(inputs, _norm_relu(_conv(x, 128, 1), relu6()))


def build_densenet():
    """Three dense blocks of four layers with a growth of 12."""
    inputs = keras.Input((28, 28, 1))
    x = _conv(inputs, 24)
    for block in range(3):
        for _ in range(4):
            y = _conv(_norm_relu(_conv(_norm_relu(x), 48, 1)), 12)
            x = layers.Concatenate()([x, y])
        if block < 2:
            x = _conv(_norm_relu(x), x.shape[-1] // 2, 1)
            x = layers.AveragePooling2D()(x)
    return _end(inputs, _norm_relu(x))


# Functions of the folder, the data folder and the training data.
NETWORKS = {
    "ResNet-20": _train_resnet20,
    "pre-activation ResNet-14": functools.partial(_train, build_preactivation),
    "MobileNetV2-like": functools.partial(_train, build_mobilenet),
    "DenseNet-like": functools.partial(_train, build_densenet),
}
