"""Converting models from batch normalization to another normalization."""

from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.report import ConversionReport
from keras_norm.errors import ConversionError

__all__ = ["ConversionError", "ConversionReport", "convert", "plan_conversion"]
