"""Configuration of `recipes/coco.py`."""

import dataclasses
from typing import ClassVar

from recipes.config.base import RunConfig
from recipes.config.fields import DeviceSettings
from recipes.detection import backbones
from recipes.detection.datasets import registry
from recipes.detection.presets import PRESETS
from recipes.detection.settings import DetectionDataSettings
from recipes.detection.settings import DetectionLossSettings
from recipes.detection.settings import DetectionRunSettings
from recipes.detection.settings import DetectionScheduleSettings
from recipes.detection.settings import DetectorSettings
from recipes.errors import RecipeError

_GROUPS = (
    DetectionRunSettings,
    DetectionDataSettings,
    DetectorSettings,
    DetectionScheduleSettings,
    DetectionLossSettings,
    DeviceSettings,
)


@dataclasses.dataclass(frozen=True)
class DetectionConfig(RunConfig, *reversed(_GROUPS)):
    """All settings of a run of `recipes/coco.py`."""

    PROGRAM: ClassVar[str] = "coco"
    GROUPS: ClassVar[tuple] = _GROUPS
    PRESETS: ClassVar[dict] = PRESETS
    REFERENCE_BATCH: ClassVar[int] = 64

    def __post_init__(self):
        super().__post_init__()
        if self.scale_jitter_min > self.scale_jitter_max:
            raise RecipeError(
                "--scale_jitter_min must be at most --scale_jitter_max. "
                f"Received: scale_jitter_min={self.scale_jitter_min}, "
                f"scale_jitter_max={self.scale_jitter_max}"
            )
        # Validates image size and levels.
        self.anchors  # noqa: B018

    def check_names(self):
        registry.find_dataset(self)
        if self.init_model is None:
            backbones.check_backbone(self.model)

    @property
    def anchors(self):
        """The `Anchors` of the pyramid."""
        # Imported here because --help does not need NumPy.
        from recipes.detection.anchors import Anchors

        return Anchors(
            self.image_size, self.min_level, self.max_level, self.anchor_size
        )
