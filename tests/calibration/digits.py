"""A small residual network for digits, and comparisons of models."""

import keras
import numpy as np
from keras import layers


def examples(shape, number=96):
    rng = np.random.default_rng(2)
    level = rng.uniform(0.7, 1.4, size=(number,) + (1,) * len(shape))
    return level * rng.normal(size=(number, *shape))


def residual_network():
    def norm_relu(x, name):
        return layers.ReLU()(layers.BatchNormalization(name=name)(x))

    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = norm_relu(x, "norm_1")
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = norm_relu(y, "norm_2")
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.Conv2D(16, 1, use_bias=False)(y)
    y = layers.BatchNormalization(name="norm_3")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(norm_relu(x, "norm_4"))
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def accuracy(model, test):
    images, labels = test
    return np.mean(predict(model, images).argmax(axis=1) == labels)


def predict(model, data):
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(data, training=False)
    )


def relative_error(model, converted, data):
    expected, got = predict(model, data), predict(converted, data)
    return np.mean((got - expected) ** 2) / np.mean(
        (expected - expected.mean(0)) ** 2
    )
