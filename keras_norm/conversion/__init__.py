"""Converting models from batch normalization to another normalization."""

from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.errors import ConversionError
from keras_norm.conversion.report import ConversionReport

__all__ = ["ConversionError", "ConversionReport", "convert", "plan_conversion"]
