"""Layers of Keras 2 (tf-keras) for files: one entry or more per class.

Only `tf_keras_writer` imports this module, in a process of its own.
"""

import numpy as np
import tf_keras
from tf_keras import layers

SERIES = (7, 3)
IMAGE = (8, 9, 4)
VOLUME = (5, 6, 7, 2)
FILM = (4, 6, 7, 2)
WORDS = ["a", "b", "c"]


def _attention(**options):
    return lambda: layers.MultiHeadAttention(2, 3, **options)


def _cells():
    return [layers.LSTMCell(3), layers.GRUCell(4)]


def _adapted(layer):
    layer.adapt(np.arange(24.0, dtype="float32").reshape(2, 3, 4))
    return layer


def _pools():
    for rank, shape in enumerate((SERIES, IMAGE, VOLUME), start=1):
        for kind in "Average", "Max":
            cls = getattr(layers, f"{kind}Pooling{rank}D")
            yield f"{kind}Pooling{rank}D", shape, cls
            cls = getattr(layers, f"Global{kind}Pooling{rank}D")
            yield f"Global{kind}Pooling{rank}D", shape, cls


def _by_rank():
    for rank, shape in enumerate((SERIES, IMAGE, VOLUME), start=1):
        for name, arguments in {
            "Conv": (3, 2),
            "SeparableConv": (3, 2),
            "DepthwiseConv": (2,),
            "Cropping": (1,),
            "ZeroPadding": (1,),
            "UpSampling": (2,),
            "SpatialDropout": (0.5,),
        }.items():
            cls = getattr(layers, f"{name}{rank}D", None)
            if cls is not None:
                yield cls.__name__, shape, _bind(cls, *arguments)
        transpose = getattr(layers, f"Conv{rank}DTranspose")
        yield transpose.__name__, shape, _bind(transpose, 3, 2)
        lstm = getattr(layers, f"ConvLSTM{rank}D")
        film = {1: SERIES + (2,), 2: FILM, 3: (3, 4, 5, 6, 2)}[rank]
        yield lstm.__name__, film, _bind(lstm, 3, 2)


def _bind(cls, *args, **kwargs):
    return lambda: cls(*args, **kwargs)


def _recurrent():
    for name in "GRU", "LSTM", "SimpleRNN":
        cls = getattr(layers, name)
        yield name, SERIES, _bind(cls, 4)
        yield (
            f"{name}-sequences",
            SERIES,
            _bind(cls, 4, return_sequences=True, go_backwards=True),
        )
        cell = getattr(layers, f"{name}Cell")
        yield (
            f"{name}Cell",
            SERIES,
            _bind(lambda cell: layers.RNN(cell(4)), cell),
        )
    for name in "GRU", "LSTM":
        cls = getattr(layers, name)
        yield (
            f"{name}-hard_sigmoid",
            SERIES,
            _bind(cls, 4, recurrent_activation="hard_sigmoid"),
        )
        cell = getattr(layers, f"{name}Cell")
        yield (
            f"{name}Cell-hard_sigmoid",
            SERIES,
            _bind(
                lambda cell: layers.RNN(
                    cell(4, recurrent_activation="hard_sigmoid")
                ),
                cell,
            ),
        )
    yield "GRU-before", SERIES, _bind(layers.GRU, 4, reset_after=False)
    yield "StackedRNNCells", SERIES, lambda: layers.RNN(_cells())
    yield (
        "Bidirectional",
        SERIES,
        lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
    )
    yield (
        "Bidirectional-two",
        SERIES,
        lambda: layers.Bidirectional(
            layers.GRU(3),
            backward_layer=layers.GRU(
                3, go_backwards=True, recurrent_activation="hard_sigmoid"
            ),
            merge_mode="sum",
        ),
    )
    yield "RNN", SERIES, lambda: layers.RNN(layers.LSTMCell(3), unroll=True)


def _elementwise():
    for name in (
        "elu exponential gelu hard_sigmoid linear mish relu selu sigmoid "
        "softmax softplus softsign swish tanh"
    ).split():
        yield f"Activation-{name}", (5,), _bind(layers.Activation, name)
        yield f"Dense-{name}", (5,), _bind(layers.Dense, 4, name)
    yield "ELU", (5,), _bind(layers.ELU, 0.7)
    yield "LeakyReLU", (5,), layers.LeakyReLU
    yield "LeakyReLU-alpha", (5,), _bind(layers.LeakyReLU, 0.1)
    yield "PReLU", IMAGE, _bind(layers.PReLU, shared_axes=[1, 2])
    yield "ReLU", (5,), layers.ReLU
    yield "ReLU-all", (5,), _bind(layers.ReLU, 1.5, 0.2, 0.3)
    yield "Softmax", IMAGE, _bind(layers.Softmax, axis=2)
    yield "Softmax-axes", IMAGE, _bind(layers.Softmax, axis=[1, 2])
    yield "ThresholdedReLU", (5,), _bind(layers.ThresholdedReLU, 0.4)
    yield (
        "ActivityRegularization",
        (5,),
        _bind(layers.ActivityRegularization, 0.1, 0.2),
    )
    for name in "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise":
        yield name, (5,), _bind(getattr(layers, name), 0.3)
    yield "Identity", (5,), layers.Identity
    yield "Lambda", (5,), lambda: layers.Lambda(lambda x: x * 2.0 + 1.0)


def _merging():
    for name in "Add Average Maximum Minimum Multiply".split():
        yield name, [(5,), (5,), (5,)], getattr(layers, name)
    yield "Subtract", [(5,), (5,)], layers.Subtract
    yield "Concatenate", [IMAGE, IMAGE], _bind(layers.Concatenate, axis=2)
    yield "Dot", [SERIES, SERIES], _bind(layers.Dot, (1, 1), normalize=True)
    yield "AdditiveAttention", [SERIES, SERIES], layers.AdditiveAttention
    yield "Attention", [SERIES, SERIES], _bind(layers.Attention, True)
    yield (
        "Attention-concat",
        [SERIES, SERIES],
        _bind(layers.Attention, score_mode="concat"),
    )
    yield "MultiHeadAttention", [SERIES, SERIES], _attention()
    yield (
        "MultiHeadAttention-value",
        [SERIES, (6, 5)],
        _attention(value_dim=4, use_bias=False, output_shape=5),
    )


def _norms():
    yield "BatchNormalization", IMAGE, layers.BatchNormalization
    yield (
        "BatchNormalization-options",
        IMAGE,
        _bind(layers.BatchNormalization, axis=1, scale=False, epsilon=0.1),
    )
    yield (
        "BatchNormalization-axes",
        IMAGE,
        _bind(layers.BatchNormalization, axis=[1, 3], fused=False),
    )
    yield (
        "SyncBatchNormalization",
        IMAGE,
        (layers.experimental.SyncBatchNormalization),
    )
    yield (
        "SyncBatchNormalization-new",
        IMAGE,
        _bind(layers.BatchNormalization, synchronized=True),
    )
    old = tf_keras.src.layers.normalization.batch_normalization_v1
    yield "BatchNormalizationV1", IMAGE, old.BatchNormalization
    yield (
        "BatchNormalizationV1-virtual",
        IMAGE,
        _bind(old.BatchNormalization, virtual_batch_size=2),
    )
    yield (
        "BatchNormalizationV1-renorm",
        IMAGE,
        _bind(
            old.BatchNormalization, renorm=True, renorm_clipping={"rmax": 3.0}
        ),
    )
    yield (
        "BatchNormalizationV1-fused",
        IMAGE,
        _bind(old.BatchNormalization, fused=True),
    )
    yield "LayerNormalization", IMAGE, layers.LayerNormalization
    yield (
        "LayerNormalization-axes",
        IMAGE,
        _bind(layers.LayerNormalization, axis=[1, 3], scale=False),
    )
    yield "GroupNormalization", IMAGE, _bind(layers.GroupNormalization, 2)
    yield "UnitNormalization", IMAGE, _bind(layers.UnitNormalization, axis=2)
    yield (
        "SpectralNormalization",
        IMAGE,
        lambda: layers.SpectralNormalization(layers.Conv2D(3, 2)),
    )
    yield "Normalization", (3, 4), lambda: _adapted(layers.Normalization())
    yield (
        "Normalization-given",
        (3, 4),
        _bind(layers.Normalization, mean=2.0, variance=4.0),
    )


def _images():
    yield "CenterCrop", IMAGE, _bind(layers.CenterCrop, 4, 5)
    yield "Rescaling", IMAGE, _bind(layers.Rescaling, 0.5, 0.1)
    yield "Resizing", IMAGE, _bind(layers.Resizing, 5, 4)
    yield "Resizing-nearest", IMAGE, _bind(layers.Resizing, 5, 4, "nearest")
    yield "Resizing-area", IMAGE, _bind(layers.Resizing, 4, 3, "area")
    yield (
        "Resizing-crop",
        IMAGE,
        _bind(layers.Resizing, 4, 3, crop_to_aspect_ratio=True),
    )
    yield (
        "UpSampling2D-bilinear",
        IMAGE,
        _bind(layers.UpSampling2D, 2, interpolation="bilinear"),
    )
    yield "RandomBrightness", IMAGE, _bind(layers.RandomBrightness, 0.2)
    yield "RandomContrast", IMAGE, _bind(layers.RandomContrast, 0.2)
    yield "RandomCrop", IMAGE, _bind(layers.RandomCrop, 4, 5)
    yield "RandomFlip", IMAGE, layers.RandomFlip
    yield "RandomHeight", IMAGE, _bind(layers.RandomHeight, 0.2)
    yield "RandomRotation", IMAGE, _bind(layers.RandomRotation, 0.2)
    yield "RandomTranslation", IMAGE, _bind(layers.RandomTranslation, 0.2, 0.1)
    yield "RandomWidth", IMAGE, _bind(layers.RandomWidth, 0.2)
    yield "RandomZoom", IMAGE, _bind(layers.RandomZoom, 0.2)


def _shapes():
    yield "Flatten", IMAGE, layers.Flatten
    yield "Permute", IMAGE, _bind(layers.Permute, (3, 1, 2))
    yield "RepeatVector", (5,), _bind(layers.RepeatVector, 3)
    yield "Reshape", IMAGE, _bind(layers.Reshape, (-1, 4))
    yield "Masking", SERIES, layers.Masking
    yield (
        "TimeDistributed",
        SERIES,
        lambda: layers.TimeDistributed(
            layers.Dense(4, activation="hard_sigmoid")
        ),
    )
    yield "Dense", SERIES, _bind(layers.Dense, 4, kernel_regularizer="l2")
    yield (
        "EinsumDense",
        SERIES,
        _bind(layers.EinsumDense, "abc,cd->abd", (None, 4), bias_axes="d"),
    )
    yield "LocallyConnected1D", SERIES, _bind(layers.LocallyConnected1D, 4, 2)
    yield "LocallyConnected2D", IMAGE, _bind(layers.LocallyConnected2D, 3, 2)
    yield (
        "LocallyConnected2D-dense",
        IMAGE,
        _bind(layers.LocallyConnected2D, 3, 2, implementation=2),
    )
    yield (
        "LocallyConnected2D-sparse",
        IMAGE,
        _bind(layers.LocallyConnected2D, 3, 2, implementation=3),
    )
    yield (
        "Conv2D-options",
        IMAGE,
        _bind(
            layers.Conv2D, 4, (2, 3), (1, 2), "same", dilation_rate=1, groups=2
        ),
    )
    yield (
        "Conv1D-causal",
        SERIES,
        _bind(layers.Conv1D, 4, 2, padding="causal", dilation_rate=2),
    )
    yield (
        "RandomFourierFeatures",
        (5,),
        _bind(layers.experimental.RandomFourierFeatures, 4),
    )


def _tokens():
    integer, text = ("int64", (4,)), ("string", (4,))
    yield "Embedding", integer, _bind(layers.Embedding, 9, 3, mask_zero=True)
    yield "CategoryEncoding", integer, _bind(layers.CategoryEncoding, 9)
    yield "Hashing", integer, _bind(layers.Hashing, 5)
    yield "Discretization", (5,), _bind(layers.Discretization, [0.0, 1.0])
    yield (
        "HashedCrossing",
        [("int64", ()), ("int64", ())],
        _bind(layers.HashedCrossing, 5),
    )
    yield (
        "IntegerLookup",
        integer,
        _bind(layers.IntegerLookup, vocabulary=[1, 2, 5]),
    )
    yield "StringLookup", text, _bind(layers.StringLookup, vocabulary=WORDS)
    yield (
        "TextVectorization",
        ("string", (1,)),
        _bind(
            layers.TextVectorization, vocabulary=WORDS, output_sequence_length=4
        ),
    )


def single_layers():
    """Returns `{name: (input or list of inputs, function)}`.

    An input is a shape without the batch, or a dtype and a shape. The function
    creates the layer.
    """
    parts = (
        _pools, _by_rank, _recurrent, _elementwise, _merging, _norms, _images,
        _shapes, _tokens,
    )  # fmt: skip
    return {
        name: (inputs, layer)
        for part in parts
        for name, inputs, layer in part()
    }


def one_layer(inputs, layer):
    """Returns a functional model of one layer, or of several inputs."""
    several = inputs if isinstance(inputs, list) else [inputs]
    tensors = []
    for given in several:
        dtype = given[0] if given and isinstance(given[0], str) else "float32"
        shape = given[1] if given and isinstance(given[0], str) else given
        tensors.append(tf_keras.Input(shape, dtype=dtype))
    layer = layer()
    if isinstance(layer, layers.MultiHeadAttention):
        return tf_keras.Model(tensors, layer(*tensors))
    outputs = layer(tensors if isinstance(inputs, list) else tensors[0])
    return tf_keras.Model(tensors, outputs)
