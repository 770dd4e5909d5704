"""Normalization for Keras 3 that frees convolutional models from the batch."""

from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.errors import ConversionError
from keras_norm.conversion.report import ConversionReport
from keras_norm.conversion.scope import norm_scope
from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.eval_norm import EvalNorm
from keras_norm.layers.frn import FRN
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization
from keras_norm.layers.group_norm import GroupNormalization
from keras_norm.layers.rbn import RBN
from keras_norm.layers.tlu import TLU
from keras_norm.registry import Norm
from keras_norm.registry import get
from keras_norm.registry import names
from keras_norm.version import __version__

__all__ = [
    "FRN",
    "RBN",
    "TLU",
    "BatchNormalization",
    "ConversionError",
    "ConversionReport",
    "EvalNorm",
    "FrozenBatchNormalization",
    "GroupNormalization",
    "Norm",
    "__version__",
    "convert",
    "get",
    "names",
    "norm_scope",
    "plan_conversion",
]
