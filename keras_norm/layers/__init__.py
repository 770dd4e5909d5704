"""The layers, one per module; modules with an underscore hold base classes."""

from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.eval_norm import EvalNorm
from keras_norm.layers.frn import FRN
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization
from keras_norm.layers.group_norm import GroupNormalization
from keras_norm.layers.no_norm import NoNormalization
from keras_norm.layers.rbn import RBN
from keras_norm.layers.tlu import TLU

__all__ = [
    "FRN",
    "RBN",
    "TLU",
    "BatchNormalization",
    "EvalNorm",
    "FrozenBatchNormalization",
    "GroupNormalization",
    "NoNormalization",
]
