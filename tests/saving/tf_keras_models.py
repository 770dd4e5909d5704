"""Models of Keras 2 (tf-keras) for files: applications and whole graphs.

Only `tf_keras_writer` imports this module, in a process of its own.
"""

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

IMAGE = (8, 9, 4)
# Largest magnitude of the inputs, where 2 would not do.
RANGES = {"preprocess": 255.0}
# Inputs of functions of TensorFlow: one or more tensors of shape IMAGE.
OPERATIONS = {
    "arithmetic": lambda x: 1.0 - (x * 2.0 + 3.0) / 4.0 - (-x),
    "divide": lambda x: tf.math.divide(x, 3.0) + tf.divide(2.0, 3.0 + x * x),
    "floor": lambda x: x // 0.7 + x % 0.3,
    "power": lambda x: tf.pow(x, 2.0) + tf.square(x) + x**3,
    "roots": lambda x: tf.sqrt(x * x + 1.0) * tf.math.rsqrt(x * x + 2.0),
    "exp": lambda x: tf.exp(x) + tf.math.log(x * x + 1.0) + tf.abs(x),
    "relu": lambda x: tf.nn.relu(x) + tf.nn.relu6(2.0 * x),
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, alpha=0.3) + tf.nn.elu(x),
    "smooth": lambda x: tf.nn.gelu(x) + tf.nn.silu(x) + tf.nn.softplus(x),
    "sigmoid": lambda x: tf.sigmoid(x) + tf.nn.sigmoid(x) + tf.tanh(x),
    "softmax": lambda x: tf.nn.softmax(x, axis=-1) + tf.nn.softmax(x, 2),
    "l2": lambda x: tf.math.l2_normalize(x, axis=-1) + tf.nn.l2_normalize(x, 1),
    "compare": lambda x: tf.where(x > 0.5, x, 2.0 * x),
    "cast": lambda x: tf.cast(tf.cast(x * 9.0, tf.int32), tf.float32),
    "clip": lambda x: tf.clip_by_value(x, -0.5, 0.7) + tf.maximum(x, 0.1),
    "reshape": lambda x: tf.reshape(x, (-1, 72, 4)),
    "transpose": lambda x: tf.transpose(x, [0, 3, 1, 2]),
    "expand": lambda x: tf.squeeze(tf.expand_dims(x, 1), axis=1),
    "concat": lambda x: tf.concat([x, 2.0 * x, x], axis=-1),
    "stack": lambda x: tf.stack([x, -x], axis=1),
    "split": lambda x: tf.split(x, 2, axis=-1)[1] * 2.0,
    "split_sizes": lambda x: tf.split(x, [1, 3], axis=3)[1],
    "unstack": lambda x: tf.unstack(x, axis=1)[3],
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]]),
    "pad_mode": lambda x: tf.pad(
        x, [[0, 0], [1, 2], [3, 0], [0, 0]], mode="REFLECT"
    ),
    "tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "mean": lambda x: tf.reduce_mean(x, axis=[1, 2], keepdims=True),
    "sum": lambda x: tf.reduce_sum(x, axis=-1) + tf.reduce_max(x, axis=-1),
    "variance": lambda x: (
        tf.math.reduce_std(x, axis=1)
        + tf.reduce_min(x, axis=1) * tf.reduce_prod(x, axis=1)
    ),
    "argmax": lambda x: tf.argmax(x, axis=-1),
    "resize": lambda x: tf.image.resize(x, (13, 5)),
    "resize_nearest": lambda x: tf.image.resize(x, (4, 3), method="nearest"),
    "slice": lambda x: x[:, 1:-1, ::2, 1],
    "slice_ellipsis": lambda x: x[..., 0, tf.newaxis],
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "gather": lambda x: tf.gather(x, [2, 0], axis=-1),
    "add_n": lambda x: tf.add_n([x, x, tf.identity(x)]),
    "stop_gradient": lambda x: tf.stop_gradient(x) * 2.0,
    "depth_to_space": lambda x: tf.nn.depth_to_space(x, 2),
    "space_to_depth": lambda x: tf.nn.space_to_depth(x[:, :, 1:], 2),
    "avg_pool": lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME"),
    "max_pool": lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID"),
    "bias": lambda x: tf.nn.bias_add(x, [1.0, 2.0, 3.0, 4.0]),
    "numpy": lambda x: x * np.array([1.0, 2.0, 3.0, 4.0], "float32"),
    "round": lambda x: tf.round(x * 4.0) + tf.floor(x) + tf.math.ceil(x),
    "sign": lambda x: tf.sign(x) + tf.sin(x) * tf.cos(x),
    "minimum": lambda x: tf.minimum(x, 0.3) + tf.math.subtract(x, 1.0),
    "backend": lambda x: (
        tf_keras.backend.hard_sigmoid(x)
        + tf_keras.backend.mean(x, axis=-1, keepdims=True)
    ),
    "keras_activation": lambda x: (
        tf_keras.activations.hard_sigmoid(x) + tf_keras.activations.swish(x)
    ),
    "log_softmax": lambda x: tf.nn.log_softmax(x) + tf.nn.softsign(x),
    "squared": lambda x: tf.math.squared_difference(x, 0.5) + tf.nn.selu(x),
    "bool": lambda x: tf.cast(
        tf.logical_and(x > -1.0, tf.logical_not(x >= 1.0)), "float32"
    ),
    "unused": lambda x: tf.nn.crelu(x),
}


def block(x, name="bn", **options):
    x = layers.Conv2D(4, 3, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=name, **options)(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def model(function, shape=IMAGE, **options):
    x = tf_keras.Input(shape)
    return tf_keras.Model(x, function(x), **options)


def slashes():
    x = tf_keras.Input(IMAGE, name="in/put")
    y = block(x, "a/b")
    y = layers.Concatenate(name="a_b_")([y, block(y, "a_b"), block(y, "c/d")])
    return tf_keras.Model(x, y, name="top/model")


def nested(trainable=True):
    inner = model(lambda x: block(block(x, "one"), "two/two"), name="in/ner")
    stack = tf_keras.Sequential(
        [layers.Conv2D(4, 1), layers.BatchNormalization(), layers.ReLU()]
    )
    inner.trainable = trainable
    x = tf_keras.Input(IMAGE)
    y = stack(inner(stack(x)))
    return tf_keras.Model(x, [inner(y), y])


def partly_frozen():
    whole = nested()
    for layer in whole._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return whole


def with_policy(name):
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        return model(
            lambda x: layers.Dense(3, dtype="float32")(block(block(x, "two")))
        )
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def sequential(*stack, **options):
    built = tf_keras.Sequential(list(stack), **options)
    if not built.built:
        built.build((None, *IMAGE))
    return built


def two_ended():
    x, z = tf_keras.Input((3,), name="x"), tf_keras.Input((3,), name="z")
    both = layers.Add()([x, z])
    outputs = [layers.BatchNormalization()(both), layers.Dense(2)(z)]
    return tf_keras.Model([x, z], outputs)


def with_states():
    x = tf_keras.Input((5, 3))
    state = layers.Dense(4)(layers.GlobalAveragePooling1D()(x))
    y = layers.GRU(4, return_sequences=True)(x, initial_state=state)
    y, h, c = layers.LSTM(4, return_state=True)(y)
    return tf_keras.Model(x, layers.Concatenate()([y, h, c]))


def masked():
    x = tf_keras.Input((5,), dtype="int64")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    return tf_keras.Model(x, layers.GRU(2)(layers.BatchNormalization()(y)))


def wrapped_model():
    inner = tf_keras.Sequential(
        [
            layers.Conv1D(3, 2, input_shape=IMAGE[1:]),
            layers.BatchNormalization(),
            layers.Activation("hard_sigmoid"),
        ]
    )
    return model(lambda x: layers.TimeDistributed(inner)(x))


def preprocessed():
    from tf_keras.applications import mobilenet_v2
    from tf_keras.applications import resnet

    return model(
        lambda x: layers.Add()(
            [
                block(mobilenet_v2.preprocess_input(x)),
                block(resnet.preprocess_input(x), "two"),
            ]
        ),
        (8, 9, 3),
    )


def shared():
    conv, norm = layers.Conv2D(4, 1), layers.BatchNormalization()
    return model(lambda x: norm(conv(norm(conv(x), training=False))))


def compiled():
    built = model(block)
    built.compile("adam", "mse", metrics=["mae"])
    return built


def op_layer():
    """Creates nodes of TensorFlow 2.0 to 2.3."""
    from google.protobuf import json_format
    from tf_keras.src.engine import base_layer

    def node(operation, **constants):
        graph = tf.Graph()
        with graph.as_default():
            holder = tf.compat.v1.placeholder(tf.float32, [None, *IMAGE])
            values = [tf.constant(value) for value in constants.values()]
            built = operation(holder, *values).op
        given = {i + 1: np.array(v) for i, v in enumerate(constants.values())}
        node_def = json_format.MessageToDict(built.node_def)
        return base_layer.TensorFlowOpLayer(
            node_def, built.name, given, dtype="float32"
        )

    x = tf_keras.Input(IMAGE)
    y = block(node(lambda x, y: x * y, y=np.float32(2.0))(x))
    y = node(lambda x: tf.raw_ops.Relu6(features=x))(y)
    y = node(lambda x, y: tf.raw_ops.AddV2(x=x, y=y), y=np.float32(0.5))(y)
    y = node(
        lambda x, axes: tf.raw_ops.Mean(input=x, axis=axes, keep_dims=True),
        y=np.array([1, 2], "int32"),
    )(y)
    return tf_keras.Model(x, y)


@tf_keras.utils.register_keras_serializable("Addons")
class GroupNormalization(layers.Layer):
    """The layer of TensorFlow Addons, by its definition."""

    def __init__(self, groups=32, axis=-1, epsilon=1e-3, **kwargs):
        super().__init__(**kwargs)
        self.options = {"groups": groups, "axis": axis, "epsilon": epsilon}

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.gamma = self.add_weight("gamma", shape, initializer="ones")
        self.beta = self.add_weight("beta", shape, initializer="zeros")

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        groups = self.options["groups"]
        groups = channels if groups == -1 else groups
        x = tf.reshape(inputs, (-1, height, width, groups, channels // groups))
        mean, variance = tf.nn.moments(x, (1, 2, 4), keepdims=True)
        x = (x - mean) / tf.sqrt(variance + self.options["epsilon"])
        x = tf.reshape(x, tf.shape(inputs))
        return x * self.gamma + self.beta

    def get_config(self):
        config = {"center": True, "scale": True, "beta_initializer": "zeros"}
        return {**super().get_config(), **self.options, **config}


@tf_keras.utils.register_keras_serializable("Addons")
class InstanceNormalization(GroupNormalization):
    """The layer of TensorFlow Addons: one channel is one group."""

    def __init__(self, **kwargs):
        super().__init__(groups=-1, **kwargs)


GRAPHS = {
    "addons_group": lambda: model(
        lambda x: GroupNormalization(2)(layers.Conv2D(6, 2)(x))
    ),
    "addons_instance": lambda: model(
        lambda x: InstanceNormalization()(layers.Conv2D(6, 2)(x))
    ),
    "slashes": slashes,
    "nested": nested,
    "nested_frozen": lambda: nested(trainable=False),
    "partly_frozen": partly_frozen,
    "mixed_float16": lambda: with_policy("mixed_float16"),
    "mixed_bfloat16": lambda: with_policy("mixed_bfloat16"),
    "float64": lambda: model(lambda x: layers.Dense(3, dtype="float64")(x)),
    "sequential": lambda: sequential(
        layers.Conv2D(3, 2, input_shape=IMAGE),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dense(2, "hard_sigmoid"),
    ),
    "sequential_deferred": lambda: sequential(
        layers.Conv2D(3, 2), layers.BatchNormalization(axis=[3])
    ),
    "sequential_axes": lambda: sequential(
        layers.InputLayer(IMAGE), layers.BatchNormalization(axis=[1, 3])
    ),
    "sequential_nested": lambda: sequential(
        sequential(layers.Reshape((72, 4), input_shape=IMAGE)),
        layers.BatchNormalization(),
    ),
    "two_ended": two_ended,
    "with_states": with_states,
    "masked": masked,
    "wrapped_model": wrapped_model,
    "preprocess": preprocessed,
    "shared": shared,
    "compiled": compiled,
    "op_layer": op_layer,
    "dynamic": lambda: model(block, (None, None, 4)),
}


def build(name):
    """Returns the model of a name."""
    if name in GRAPHS:
        return GRAPHS[name]()
    if name.startswith("op-"):
        operation = OPERATIONS[name.removeprefix("op-")]
        return model(lambda x: operation(block(x)))
    kind, _, size = name.partition("-")
    function = getattr(tf_keras.applications, kind)
    shape = (int(size or 75),) * 2 + (3,)
    return function(input_shape=shape, include_top=False, weights=None)
