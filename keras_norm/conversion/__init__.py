"""Rebuilding a model with another normalization."""

from keras_norm.conversion.rebuild import replace_batch_norm

__all__ = ["replace_batch_norm"]
