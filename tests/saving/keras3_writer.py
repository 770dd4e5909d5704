"""Writes files and outputs with an older Keras 3, which is on PYTHONPATH.

    python -m tests.saving.keras3_writer FOLDER

For each model writes NAME.keras, and NAME.npz with the inputs x0, x1 ... and
the output y0.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers

SERIES, IMAGE, TOKENS = (7, 3), (8, 9, 4), "int32"
ONE = {
    "additive": ([SERIES, SERIES], layers.AdditiveAttention),
    "attention": ([SERIES, SERIES], layers.Attention),
    "bidirectional": (SERIES, lambda: layers.Bidirectional(layers.LSTM(3))),
    "bn": (IMAGE, layers.BatchNormalization),
    "brightness": (IMAGE, lambda: layers.RandomBrightness(0.2)),
    "category": (TOKENS, lambda: layers.CategoryEncoding(9)),
    "contrast": (IMAGE, lambda: layers.RandomContrast(0.2)),
    "conv": (IMAGE, lambda: layers.Conv2D(3, 2)),
    "conv_lstm": ((4, 6, 7, 2), lambda: layers.ConvLSTM2D(3, 2)),
    "crop": (IMAGE, lambda: layers.RandomCrop(4, 5)),
    "depthwise": (IMAGE, lambda: layers.DepthwiseConv2D(2)),
    "discretization": ((5,), lambda: layers.Discretization([0.0, 1.0])),
    "dropout": (IMAGE, lambda: layers.SpatialDropout2D(0.2)),
    "embedding": (TOKENS, lambda: layers.Embedding(9, 3, mask_zero=True)),
    "flip": (IMAGE, layers.RandomFlip),
    "gru": (SERIES, lambda: layers.GRU(4)),
    "half": (IMAGE, lambda: layers.Conv2D(3, 2, dtype="mixed_float16")),
    "hard_sigmoid": ((5,), lambda: layers.Activation("hard_sigmoid")),
    "lookup": (TOKENS, lambda: layers.IntegerLookup(vocabulary=[1, 2, 5])),
    "multi_head": (
        SERIES,
        lambda: lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    ),
    "nested": (
        IMAGE,
        lambda: keras.Sequential(
            [layers.Conv2D(3, 2), layers.BatchNormalization()]
        ),
    ),
    "operations": (
        IMAGE,
        lambda: (
            lambda x: (
                keras.ops.relu(x * 2.0 + 1.0)[:, 1:-1, ::2]
                - keras.ops.mean(x, axis=(1, 2), keepdims=True)
            )
        ),
    ),
    "rotation": (IMAGE, lambda: layers.RandomRotation(0.2)),
    "separable": (IMAGE, lambda: layers.SeparableConv2D(3, 2)),
    "stacked": (
        SERIES,
        lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
    ),
    "sync": (IMAGE, lambda: layers.BatchNormalization(synchronized=True)),
    "translation": (IMAGE, lambda: layers.RandomTranslation(0.2, 0.1)),
    "zoom": (IMAGE, lambda: layers.RandomZoom(0.2)),
}
APPLICATIONS = "DenseNet121", "MobileNetV3Small", "EfficientNetB0", "ResNet50"


def one_layer(inputs, layer):
    tensors = [
        keras.Input((4,), dtype=x) if x == TOKENS else keras.Input(x)
        for x in (inputs if isinstance(inputs, list) else [inputs])
    ]
    outputs = layer()(tensors if isinstance(inputs, list) else tensors[0])
    return keras.Model(tensors, outputs)


def application(name):
    function = getattr(keras.applications, name)
    return function(weights=None, include_top=False, input_shape=(64, 64, 3))


def draw_weights(model, generator):
    for weight in model.weights:
        if "float" not in str(weight.dtype):
            continue
        value = generator.uniform(0.5, 1.5, weight.shape)
        if weight.name not in ("gamma", "moving_variance"):
            size = max(1, np.prod(weight.shape[:-1]))
            value = (value * 3.0 - 2.8) / np.sqrt(size)
        weight.assign(value)


def draw_input(tensor, generator):
    shape = (2, *tensor.shape[1:])
    if "int" in str(tensor.dtype):
        return generator.integers(0, 9, shape).astype("int32")
    return generator.uniform(-2.0, 2.0, shape).astype("float32")


def main(folder):
    folder = pathlib.Path(folder)
    for name in [*ONE, *APPLICATIONS]:
        keras.utils.set_random_seed(1)
        generator = np.random.default_rng(len(name))
        model = one_layer(*ONE[name]) if name in ONE else application(name)
        draw_weights(model, generator)
        inputs = [draw_input(tensor, generator) for tensor in model.inputs]
        outputs = model(
            inputs if len(inputs) > 1 else inputs[0], training=False
        )
        model.save(folder / f"{name}.keras")
        arrays = {f"x{i}": value for i, value in enumerate(inputs)}
        np.savez(folder / f"{name}.npz", y0=np.asarray(outputs), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
