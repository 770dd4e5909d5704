"""Differences between the layers of Keras 2 and those of Keras 3.

The tests load every layer of Keras 2 and compare the config of the file with
the config of the loaded layer, key by key. A difference that is not in these
tables is an error.
"""

import keras

# Classes that Keras 3 has under another name.
CLASSES = {
    "Addons>GroupNormalization": "GroupNormalization",
    "Addons>InstanceNormalization": "GroupNormalization",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
    "RandomCrop": "Resizing",
    "Model": "Functional",
}
# Classes that are not public, and their modules in Keras 3.
MODULES = {
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
}
# Arguments that Keras 3 renamed.
RENAMED = {
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}
ANY = object()
# Values of arguments with which a layer computes the same without the
# argument. Any other value is an error. "*" stands for every class.
DROPPED = {
    "*": {
        # They only say how the result is computed.
        "implementation": ANY,
        "experimental_autocast": ANY,
        "rng_type": ANY,
        # Static information that Keras 3 finds out by itself.
        "batch_input_shape": ANY,
        "ragged": (False, None),
        "sparse": (False, None),
        "time_major": (False, None),
        "dynamic": (False, None),
    },
    "BatchNormalization": {
        "fused": ANY,
        # Both concern training only, and are in a note.
        "virtual_batch_size": ANY,
        "renorm": ANY,
        "renorm_clipping": ANY,
        "renorm_momentum": ANY,
    },
    "Conv1DTranspose": {"groups": (1,)},
    "Conv2DTranspose": {"groups": (1,)},
    "Conv3DTranspose": {"groups": (1,)},
    "DepthwiseConv1D": {"groups": (1,)},
    "DepthwiseConv2D": {"groups": (1,)},
    "Embedding": {"input_length": ANY},
    "Lambda": {
        "function_type": ANY,
        "module": ANY,
        "output_shape_type": ANY,
        "output_shape_module": ANY,
    },
    "MultiHeadAttention": {
        "query_shape": ANY,
        "key_shape": ANY,
        "value_shape": ANY,
        "softmax_robust_masking": (False, None),
    },
    "SpatialDropout1D": {"noise_shape": (None,)},
    "SpatialDropout2D": {"noise_shape": (None,)},
    "SpatialDropout3D": {"noise_shape": (None,)},
}
SEPARABLE = dict.fromkeys(
    ("kernel_initializer", "kernel_regularizer", "kernel_constraint"), ANY
)
for _name in "SeparableConv1D", "SeparableConv2D":
    # The layer has two kernels, which have arguments of their own.
    DROPPED[_name] = SEPARABLE | {"groups": (1,)}
# Defaults of Keras 2 for arguments that older files do not contain, if Keras 3
# has another default.
DEFAULTS = {"GRU": {"reset_after": False}, "GRUCell": {"reset_after": False}}
# Arguments that need not be the same in the config of the loaded layer.
UNCHECKED = {
    # The dtype of a lookup is that of its keys, which Keras 3 derives.
    "IntegerLookup": ("dtype",),
    "StringLookup": ("dtype",),
    "Lambda": ("function", "output_shape"),
}
# Layers that Keras 3 has no counterpart of.
REMOVED = (
    "CuDNNGRU",
    "CuDNNLSTM",
    "DenseFeatures",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "RandomFourierFeatures",
    "RandomHeight",
    "RandomWidth",
)
KERAS_LAYERS = frozenset(
    name
    for name, value in vars(keras.layers).items()
    if isinstance(value, type)
)
