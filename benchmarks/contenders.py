"""Timed layers: ours, their peers, and naive implementations."""

import keras
from keras import ops

import keras_norm


class TextbookFRN(keras.layers.Layer):
    """Naive FRN and TLU, one operation after the other."""

    def build(self, shape):
        channels = (shape[-1],)
        self.gamma = self.add_weight(shape=channels, initializer="ones")
        self.beta = self.add_weight(shape=channels, initializer="zeros")
        self.tau = self.add_weight(shape=channels, initializer="zeros")

    def call(self, x, training=None):
        nu2 = ops.mean(ops.square(x), axis=(1, 2), keepdims=True)
        y = self.gamma * (x * ops.rsqrt(nu2 + 1e-6)) + self.beta
        return ops.maximum(y, self.tau)


class FormulaRBN(keras.layers.Layer):
    """Naive RBN by its formulas, with Keras' batch normalization."""

    def build(self, shape):
        channels = (shape[-1],)
        self.norm = keras.layers.BatchNormalization(center=False, scale=False)
        self.norm.build(shape)
        self.center_weight = self.add_weight(channels, "zeros")
        self.scale_weight = self.add_weight(channels, "zeros")
        self.scale_bias = self.add_weight(channels, "ones")
        self.gamma = self.add_weight(channels, "ones")
        self.beta = self.add_weight(channels, "zeros")

    def call(self, x, training=None):
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        x = x + self.center_weight * mean
        x = self.norm(x, training=training)
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        x = x * ops.sigmoid(self.scale_weight * mean + self.scale_bias)
        return self.gamma * x + self.beta


class FusedBatchNorm(keras.layers.Layer):
    """TensorFlow's fused batch normalization, which uses oneDNN on a CPU."""

    def build(self, shape):
        self.gamma = self.add_weight((shape[-1],), "ones")
        self.beta = self.add_weight((shape[-1],), "zeros")

    def call(self, x, training=None):
        import tensorflow as tf

        return tf.compat.v1.nn.fused_batch_norm(
            x, self.gamma, self.beta, is_training=True
        )[0]


class Copy(keras.layers.Layer):
    """Reads one tensor and writes one tensor."""

    def call(self, x, training=None):
        return x + 1.0


def all_contenders(backend):
    """Returns a dict from names to functions that return a list of layers.

    timm's layer is a torch module, see `timm_frn_tlu`.
    """
    relu = keras.layers.ReLU
    batch_norm = keras.layers.BatchNormalization
    group_norm = keras.layers.GroupNormalization
    contenders = {
        "copy": lambda: [Copy()],
        "FRN(activation=tlu)": lambda: [keras_norm.FRN(activation="tlu")],
        "FRN, TLU": lambda: [keras_norm.FRN(), keras_norm.TLU()],
        "RBN": lambda: [keras_norm.RBN()],
        "BN": lambda: [keras_norm.BatchNormalization()],
        "Keras BN": lambda: [batch_norm()],
        "Keras BN, ReLU": lambda: [batch_norm(), relu()],
        "Keras GN, ReLU": lambda: [group_norm(), relu()],
        "textbook FRN, TLU": lambda: [TextbookFRN()],
        "RBN by formula": lambda: [FormulaRBN()],
    }
    if backend == "tensorflow":
        contenders["fused BN, ReLU"] = lambda: [FusedBatchNorm(), relu()]
    return contenders


def timm_frn_tlu(channels):
    """Returns timm's FRN and TLU for `(N, C, H, W)`; None without timm."""
    try:
        from timm.layers import FilterResponseNormTlu2d
    except ImportError:
        return None
    return FilterResponseNormTlu2d(channels)
