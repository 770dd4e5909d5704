"""Batch-independent and replica-correct normalization for Keras 3.

Main entry points:

* `keras_norm.convert(model, "frn")` replaces the batch normalization in a
  trained model; the program `keras-norm` does the same for a file.
* `keras_norm.fold(model)` moves the batch normalization of a trained model into
  the convolutions and dense layers next to it, for faster inference.
* `keras_norm.recalibrate(model, images)` recomputes the moving statistics of
  batch normalization; `keras_norm.pool(models, counts)` combines those of
  several copies of a model.
* `keras_norm.load_model(path)` loads files of Keras 2 and of older Keras 3.
* `keras_norm.FRN` with `keras_norm.TLU`, `keras_norm.RBN` and the others are
  layers for new models, in place of batch normalization.
* `keras_norm.get("frn")` returns a norm by name, for model builders that take
  any norm; `keras_norm.names()` lists the names.
* `keras_norm.norm_scope("frn")` replaces batch normalization while a model is
  being built, for models that cannot be converted.
* `keras_norm.norm_weights(model)` returns the weights that are usually excluded
  from weight decay.

Importing this package registers its layers with Keras. Import it before
`keras.saving.load_model` loads a model that contains them.

`keras_norm.analysis`, `keras_norm.compat` (layers of TensorFlow Addons) and
`keras_norm.training` (data-parallel training with TensorFlow) are imported on
first use.
"""

import importlib as _importlib

import keras_norm.saving.keras2.layers as _keras2_layers  # noqa: F401
from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.norm_scope import norm_scope
from keras_norm.conversion.report import ConversionReport
from keras_norm.errors import ConversionError
from keras_norm.folding.fold import fold
from keras_norm.folding.report import FoldReport
from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.constant_padding import ConstantPadding
from keras_norm.layers.eval_norm import EvalNorm
from keras_norm.layers.frn import FRN
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization
from keras_norm.layers.group_norm import GroupNormalization
from keras_norm.layers.no_norm import NoNormalization
from keras_norm.layers.rbn import RBN
from keras_norm.layers.tlu import TLU
from keras_norm.norm_layers import is_norm_layer
from keras_norm.norm_layers import norm_weights
from keras_norm.recalibration.pool import pool
from keras_norm.recalibration.recalibrate import recalibrate
from keras_norm.recalibration.report import RecalibrationReport
from keras_norm.registry import Norm
from keras_norm.registry import get
from keras_norm.registry import names
from keras_norm.saving.load import load_model
from keras_norm.version import __version__

__all__ = [
    "FRN",
    "RBN",
    "TLU",
    "BatchNormalization",
    "ConstantPadding",
    "ConversionError",
    "ConversionReport",
    "EvalNorm",
    "FoldReport",
    "FrozenBatchNormalization",
    "GroupNormalization",
    "NoNormalization",
    "Norm",
    "RecalibrationReport",
    "__version__",
    "convert",
    "fold",
    "get",
    "is_norm_layer",
    "load_model",
    "names",
    "norm_scope",
    "norm_weights",
    "plan_conversion",
    "pool",
    "recalibrate",
]

_LAZY_MODULES = ("analysis", "compat", "training")


def __getattr__(name):
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise AttributeError(
            f"{__name__}.{name} cannot be imported: {error}"
        ) from error


def __dir__():
    return sorted([*__all__, *_LAZY_MODULES])
