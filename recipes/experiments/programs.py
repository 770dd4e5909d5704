"""The training programs whose runs can be swept and compared."""

from recipes.classification.config import Config
from recipes.detection.config import DetectionConfig

CONFIG_CLASSES = (Config, DetectionConfig)
