"""The config of `recipes/imagenet.py`."""

import dataclasses
from typing import ClassVar

from recipes.classification.presets import PRESETS
from recipes.classification.settings import ClassificationDataSettings
from recipes.classification.settings import ClassificationNetworkSettings
from recipes.classification.settings import ClassificationRunSettings
from recipes.config.base import RunConfig
from recipes.config.fields import DeviceSettings
from recipes.config.fields import OptimizerSettings
from recipes.config.fields import ScheduleSettings

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
