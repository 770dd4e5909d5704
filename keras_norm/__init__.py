"""Normalization for Keras 3 that frees convolutional models from the batch.

Where to start:

* `keras_norm.convert(model, "frn")` replaces the batch normalization of a model
  by another norm, and so does the program `keras-norm` for a file.
* `keras_norm.FRN` with `keras_norm.TLU`, `keras_norm.RBN` and the others are
  layers for a new model, in the place of batch normalization.
* `keras_norm.get("frn")` gives a norm by its name, for a builder of models that
  takes any; `keras_norm.names()` lists the names.
* `keras_norm.norm_scope("frn")` is for models that cannot be converted.

Import it before `keras.saving.load_model` reads a model with its layers, which
are registered with Keras by this import.

`keras_norm.analysis`, `keras_norm.compat` (layers of TensorFlow Addons) and
`keras_norm.training` (replicas, on TensorFlow) are imported when they are used.
"""

import importlib as _importlib

from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.norm_scope import norm_scope
from keras_norm.conversion.report import ConversionReport
from keras_norm.errors import ConversionError
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

_MODULES = ("analysis", "compat", "training")


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise AttributeError(
            f"{__name__}.{name} cannot be imported: {error}"
        ) from error


def __dir__():
    return sorted([*__all__, *_MODULES])
