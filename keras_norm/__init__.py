"""Normalization for Keras 3 that frees convolutional models from the batch."""

from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.frn import FRN
from keras_norm.layers.rbn import RBN
from keras_norm.layers.tlu import TLU
from keras_norm.registry import Norm
from keras_norm.registry import get
from keras_norm.registry import names

__version__ = "0.1.0"

__all__ = [
    "FRN",
    "RBN",
    "TLU",
    "BatchNormalization",
    "Norm",
    "get",
    "names",
]
