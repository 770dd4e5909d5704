"""Small models, each with a feature that is hard to rebuild."""

import keras
import numpy as np
from keras import layers
from keras import ops


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class Scale(layers.Layer):
    """Layer with its own weight, like ConvNeXt's LayerScale."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(shape[-1],))

    def call(self, inputs):
        return inputs * self.factor


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class Block(layers.Layer):
    """Composite layer whose config does not list its inner layers."""

    def __init__(self, filters=4, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.dense = layers.Dense(filters, name="dense")
        self.norm = layers.BatchNormalization(name="norm")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], self.filters))

    def call(self, inputs, training=None):
        return self.norm(self.dense(inputs), training=training)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class Backbone(keras.Model):
    """Functional model that overrides the constructor, like KerasHub's."""

    def __init__(self, width=4, **kwargs):
        x = keras.Input((6, 6, 3), name="images")
        y = conv_block(x, "stem", width)
        super().__init__(inputs=x, outputs=y, **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "width": self.width}


def conv_block(x, name, filters=4, activation=True, **kwargs):
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn", **kwargs)(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def image():
    return keras.Input((6, 6, 3), name="image")


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(name="bn"),
            layers.Activation("relu", name="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ],
        name="sequential",
    )


def built_sequential():
    """Sequential without keras.Input, built by its first call."""
    model = keras.Sequential(
        [layers.Dense(4), layers.BatchNormalization(), layers.ReLU()]
    )
    model.build((None, 5))
    return model


def residual():
    x = image()
    shortcut = conv_block(x, "shortcut", activation=False)
    y = conv_block(x, "first")
    y = conv_block(y, "second", activation=False)
    y = layers.Add(name="add")([shortcut, y])
    y = layers.ReLU(name="out")(y)
    return keras.Model(x, layers.GlobalAveragePooling2D()(y), name="residual")


def bare_operations():
    x = image()
    y = conv_block(x, "first", activation=False)
    z = conv_block(x, "second", activation=False)
    y = ops.relu(y + z)
    z = keras.activations.relu(z)
    y = ops.concatenate([y[..., :2], z * 2.0], axis=-1)
    return keras.Model(x, ops.mean(y, axis=(1, 2)), name="bare")


def four_relus():
    x = image()
    relus = (
        layers.ReLU(name="layer"),
        layers.Activation("relu", name="activation"),
        ops.relu,
        keras.activations.relu,
    )
    branches = [
        relu(conv_block(x, f"branch{i}", activation=False))
        for i, relu in enumerate(relus)
    ]
    return keras.Model(x, layers.Concatenate()(branches), name="relus")


def other_activations():
    """Capped, smooth and hard activations, and a handwritten gate."""
    x = image()
    branches = [
        activation(conv_block(x, f"branch{i}", activation=False))
        for i, activation in enumerate(
            (
                layers.ReLU(6.0, name="capped"),
                layers.Activation("silu", name="silu"),
                layers.Activation("hard_silu", name="hard_silu"),
                layers.LeakyReLU(name="leaky"),
                layers.ReLU(threshold=0.5, name="threshold"),
                ops.relu6,
            )
        )
    ]
    gated = conv_block(x, "gated", activation=False)
    gate = layers.ReLU(6.0, name="gate")(gated + 3.0) * (1.0 / 6.0)
    squeezed = layers.Conv2D(4, 1, name="squeeze")(gated)
    squeezed = layers.ReLU(name="squeeze_relu")(squeezed)
    branches += [gated * gate, squeezed]
    y = layers.GlobalAveragePooling2D()(layers.Concatenate()(branches))
    y = layers.Dense(3, activation="softmax", name="head")(y)
    return keras.Model(x, y, name="activations")


def many_consumers():
    """One norm feeds two ReLUs, a convolution and the output."""
    x = image()
    y = conv_block(x, "stem", activation=False)
    first = layers.ReLU(name="relu1")(y)
    second = layers.Activation("relu", name="relu2")(y)
    third = layers.Conv2D(4, 1, name="conv")(y)
    joined = layers.Add(name="joined")([first, second, third])
    return keras.Model(x, [joined, y], name="consumers")


def shared_relu():
    """One ReLU after two norms of other widths, and on the input."""
    relu = layers.ReLU(name="relu")
    x = image()
    narrow = relu(conv_block(x, "narrow", 4, activation=False))
    wide = relu(conv_block(x, "wide", 7, activation=False))
    return keras.Model(x, [narrow, wide, relu(x)], name="shared_relu")


def shared_norm():
    """A norm and a ReLU called twice: weights stay shared."""
    norm = layers.BatchNormalization(name="bn")
    relu = layers.ReLU(name="relu")
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    return keras.Model(
        [a, b], layers.Subtract()([relu(norm(a)), relu(norm(b))]), name="twins"
    )


def siamese():
    """A nested model called twice, in a dict of inputs and outputs."""
    x = keras.Input((6, 6, 3))
    tower = keras.Model(x, conv_block(x, "tower"), name="tower")
    inputs = {
        "left": keras.Input((6, 6, 3), name="left"),
        "right": keras.Input((6, 6, 3), name="right"),
    }
    left, right = tower(inputs["left"]), tower(inputs["right"])
    outputs = {"sum": left + right, "left": left}
    return keras.Model(inputs, outputs, name="siamese")


def nested():
    """Two levels deep, one a Sequential; a ReLU outside follows its end."""
    x = keras.Input((6, 6, 3))
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(name="bn"),
        ],
        name="inner",
    )
    middle = keras.Model(x, inner(conv_block(x, "middle")), name="middle")
    y = image()
    z = layers.ReLU(name="after")(middle(y))
    return keras.Model(y, z, name="outer")


def frozen_nested():
    """Frozen model, called with training=False."""
    x = keras.Input((6, 6, 3))
    base = keras.Model(x, conv_block(x, "base"), name="base")
    base.trainable = False
    y = image()
    z = base(y, training=False)
    return keras.Model(y, conv_block(z, "head"), name="transfer")


def thawed():
    """Frozen model with one trainable layer and one trainable activation."""
    x = keras.Input((6, 6, 3))
    base = keras.Model(x, conv_block(x, "base"), name="base")
    base.trainable = False
    base.get_layer("base_conv").trainable = True
    y = image()
    model = keras.Model(y, conv_block(base(y), "head"), name="thawed")
    model.get_layer("head_relu").trainable = False
    return model


def untrainable():
    model = residual()
    model.trainable = False
    return model


def partly_frozen():
    model = residual()
    model.get_layer("first_bn").trainable = False
    model.get_layer("first_conv").trainable = False
    return model


def inference_calls():
    x = image()
    y = layers.Conv2D(4, 3)(x)
    y = layers.BatchNormalization(name="bn")(y, training=False)
    return keras.Model(x, layers.ReLU(name="relu")(y), name="inference")


def masked():
    x = keras.Input((7, 5), name="steps")
    y = layers.Masking()(x)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.ReLU(name="relu")(y)
    return keras.Model(x, layers.LSTM(3)(y), name="masked")


def vectors():
    x = keras.Input((5,), name="vector")
    y = layers.Dense(4, name="dense")(x)
    y = layers.BatchNormalization(name="bn")(y)
    return keras.Model(x, layers.ReLU(name="relu")(y), name="vectors")


def channels_first():
    x = keras.Input((3, 6, 5), name="image")
    y = layers.BatchNormalization(axis=1, name="bn")(x)
    y = layers.Activation("relu", name="relu")(y)
    return keras.Model(x, y, name="first")


def positive_axis():
    x = image()
    y = layers.BatchNormalization(axis=3, name="bn")(x)
    return keras.Model(x, layers.ReLU(name="relu")(y), name="axis3")


def without_affine():
    x = image()
    y = layers.Conv2D(4, 3)(x)
    y = layers.BatchNormalization(scale=False, name="no_gamma")(y)
    y = layers.ReLU(name="relu1")(y)
    y = layers.BatchNormalization(center=False, name="no_beta")(y)
    y = layers.ReLU(name="relu2")(y)
    y = layers.BatchNormalization(center=False, scale=False, name="bare")(y)
    return keras.Model(x, y, name="affine")


def with_lambda():
    factor = 3.0
    x = image()
    y = layers.Lambda(
        lambda t, shift: t * factor + shift,
        arguments={"shift": 0.5},
        name="lambda",
    )(x)
    return keras.Model(x, conv_block(y, "stem"), name="lambda_model")


def own_weights():
    """Model with a separable convolution, a custom layer and embeddings."""
    x = image()
    y = layers.SeparableConv2D(4, 3, padding="same")(x)
    y = Scale(name="scale")(y)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.PReLU(name="prelu")(y)
    return keras.Model(x, layers.Dropout(0.5)(y), name="weights")


def adapted():
    """Model with adapted preprocessing layers."""
    data = np.random.default_rng(3).normal(2.0, 5.0, (8, 6, 6, 3))
    scaled = layers.Normalization(name="adapted")
    scaled.adapt(data.astype("float32"))
    x = image()
    return keras.Model(x, conv_block(scaled(x), "stem"), name="adapted_model")


def composites():
    """Model with composite layers that contain no batch normalization."""
    x = keras.Input((7, 4), name="steps")
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = layers.TimeDistributed(layers.Dense(3))(y)
    return keras.Model(x, layers.ReLU()(y), name="composites")


def after_activation():
    """Convolution with an activation, followed by a norm without one."""
    x = image()
    y = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    return keras.Model(x, layers.Flatten()(y), name="after")


def options():
    """Regularizers, constraints, and an unusual epsilon and momentum."""
    return sequential_of(
        layers.BatchNormalization(
            momentum=0.7,
            epsilon=2e-3,
            gamma_regularizer=keras.regularizers.L2(0.1),
            beta_constraint=keras.constraints.NonNeg(),
            gamma_initializer="zeros",
            name="bn",
        )
    )


def sequential_of(*inner):
    return keras.Sequential(
        [keras.Input((6, 6, 3)), *inner, layers.Flatten(), layers.Dense(2)]
    )


def mixed():
    """Mixed precision inside, float32 at the end."""
    x = image()
    y = layers.Conv2D(4, 3, dtype="mixed_bfloat16", name="conv")(x)
    y = layers.BatchNormalization(dtype="mixed_bfloat16", name="bn")(y)
    y = layers.ReLU(dtype="mixed_bfloat16", name="relu")(y)
    return keras.Model(x, layers.Dense(2, dtype="float32")(y), name="mixed")


def optional_input():
    x = image()
    bias = keras.Input((6, 6, 4), optional=True, name="bias")
    y = conv_block(x, "stem")
    y = AddIfGiven(name="add_if_given")([y, bias])
    return keras.Model([x, bias], y, name="optional")


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class AddIfGiven(layers.Layer):
    def call(self, inputs):
        first, second = inputs
        return first if second is None else first + second

    def compute_output_shape(self, shapes):
        return shapes[0]


def chain(num):
    """Model with `num` additions in a row."""
    x = y = keras.Input((3,), name="vector")
    for _ in range(num):
        y = ops.add(y, 1.0)
    y = layers.BatchNormalization(name="bn")(y)
    return keras.Model(x, ops.relu(y), name="chain")


def backbone():
    return Backbone(name="backbone")


def borrowed():
    """Model that reuses the layers of a larger model."""
    other = residual()
    features = other.get_layer("first_bn").output
    y = layers.Flatten()(layers.ReLU(name="own_relu")(features))
    return keras.Model(other.input, y, name="borrowed")


def unnamed_inputs():
    x = keras.Input((6, 6, 3))
    return keras.Model(x, conv_block(x, "stem"))


def compiled():
    model = sequential()
    model.compile(optimizer="adam", loss="mse")
    return model


def wrapped():
    """Batch normalization inside a wrapper and a composite layer."""
    x = keras.Input((7, 5), name="steps")
    y = layers.TimeDistributed(
        keras.Sequential(
            [keras.Input((5,)), layers.BatchNormalization(name="inside")]
        ),
        name="wrapper",
    )(x)
    y = Block(name="block")(y)
    y = layers.BatchNormalization(name="bn")(y)
    return keras.Model(x, y, name="wrapped")


# Every batch normalization of these is reached.
ZOO = {
    builder.__name__: builder
    for builder in (
        sequential,
        built_sequential,
        residual,
        bare_operations,
        four_relus,
        other_activations,
        many_consumers,
        shared_relu,
        shared_norm,
        siamese,
        nested,
        frozen_nested,
        thawed,
        untrainable,
        partly_frozen,
        inference_calls,
        masked,
        vectors,
        channels_first,
        positive_axis,
        without_affine,
        with_lambda,
        own_weights,
        adapted,
        composites,
        after_activation,
        options,
        mixed,
        optional_input,
        backbone,
        borrowed,
        unnamed_inputs,
        compiled,
    )
}


def build(name):
    """Builds a model in which all weights are different."""
    model = ZOO[name]()
    fill(model)
    return model


def fill(model, seed=1):
    """Assigns different values, with plausible gamma and variance."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in str(variable.dtype) or "adapted/" in variable.path:
            continue
        low, high = -0.5, 0.5
        if variable.name in ("gamma", "moving_variance"):
            low, high = 0.5, 1.5
        variable.assign(generator.uniform(low, high, variable.shape))


def draw(model, batch=2, seed=0):
    """Draws inputs in the model's nested structure."""
    generator = np.random.default_rng(seed)

    def values(x):
        sizes = [batch, *(n or 6 for n in x.shape[1:])]
        return generator.normal(size=sizes).astype("float32")

    return keras.tree.map_structure(values, _inputs(model))


def _inputs(model):
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    inputs = model._inputs_struct
    return inputs


def call(model, inputs, **kwargs):
    """Returns the outputs in a flat list of arrays."""
    outputs = model(inputs, **kwargs)
    return [
        np.array(ops.convert_to_numpy(ops.stop_gradient(x)), "float32")
        for x in keras.tree.flatten(outputs)
    ]


def every_layer(model):
    return list(model._flatten_layers())


def stock(model):
    """Returns all layers of Keras' own batch normalization."""
    return [
        layer
        for layer in every_layer(model)
        if type(layer) is layers.BatchNormalization
    ]
