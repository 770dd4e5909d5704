"""The config of `recipes/imagenet.py`."""

import dataclasses
from typing import ClassVar

from recipes.classification import datasets
from recipes.classification.presets import PRESETS
from recipes.classification.settings import ClassificationDataSettings
from recipes.classification.settings import ClassificationNetworkSettings
from recipes.classification.settings import ClassificationRunSettings
from recipes.config.base import RunConfig
from recipes.config.fields import DeviceSettings
from recipes.config.fields import OptimizerSettings
from recipes.config.fields import ScheduleSettings
from recipes.models import classifiers

_GROUPS = (
    ClassificationRunSettings,
    ClassificationDataSettings,
    ClassificationNetworkSettings,
    ScheduleSettings,
    OptimizerSettings,
    DeviceSettings,
)


@dataclasses.dataclass(frozen=True)
class Config(RunConfig, *reversed(_GROUPS)):
    """All settings of a run of `recipes/imagenet.py`."""

    PROGRAM: ClassVar[str] = "imagenet"
    GROUPS: ClassVar[tuple] = _GROUPS
    PRESETS: ClassVar[dict] = PRESETS
    REFERENCE_BATCH: ClassVar[int] = 256

    def check_names(self):
        datasets.find_dataset(self)
        if self.init_model is None:
            classifiers.find_builder(self.model)
