"""Folding batch normalization into the linear layers around it."""

from keras_norm.folding.fold import fold
from keras_norm.folding.report import FoldReport

__all__ = ["FoldReport", "fold"]
