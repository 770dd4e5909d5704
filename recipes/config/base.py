"""The configuration of a run: what flags and presets say, checked once."""

import dataclasses
import pathlib
from typing import ClassVar

from recipes.classification.presets import PRESETS
from recipes.classification.settings import ClassificationDataSettings
from recipes.classification.settings import ClassificationNetworkSettings
from recipes.classification.settings import ClassificationRunSettings
from recipes.config.setting import check
from recipes.config.settings import DeviceSettings
from recipes.config.training_settings import OptimizerSettings
from recipes.config.training_settings import ScheduleSettings
from recipes.errors import RecipeError


class RunConfig:
    """What the config of a run is, whatever it trains.

    A kind of run is a frozen dataclass of this and of its groups of settings.
    Each field is a flag of that name.

    Attributes:
        GROUPS: The groups, in the order of `--help`; the first line of each
            docstring is its heading.
        PRESETS: Dict of settings by name.
        REFERENCE_BATCH: The global batch size that learning rates are given
            for.
    """

    GROUPS: ClassVar[tuple]
    PRESETS: ClassVar[dict]
    REFERENCE_BATCH: ClassVar[int]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if self.convert_to is not None and self.init_model is None:
            raise RecipeError(
                "--convert_to converts the model of --init_model: give that "
                f"too, or --norm. Received: convert_to={self.convert_to}"
            )
        if self.activation != "auto" and self.init_model is not None:
            raise RecipeError(
                "--activation is of a new --model; that of --init_model keeps "
                f"its own. Received: activation={self.activation}"
            )
        if (self.train_steps is None) == (self.train_epochs is None):
            raise RecipeError(
                "training needs a length: either train_epochs or train_steps. "
                f"Received: train_epochs={self.train_epochs}, "
                f"train_steps={self.train_steps}"
            )

    @property
    def folder(self):
        """The workdir as a path."""
        if self.workdir is not None:
            return pathlib.Path(self.workdir).expanduser()
        dataset = self.dataset.replace(":", "-").replace("/", "-")
        return pathlib.Path("runs") / f"{dataset}-{'-'.join(self.network)}"

    @property
    def network(self):
        """The names of the network and of its norm."""
        if self.init_model is None:
            return self.model, self.norm
        name = pathlib.Path(self.init_model).stem
        return (name, self.convert_to) if self.convert_to else (name,)

    @property
    def peak_learning_rate(self):
        """The learning rate by the linear scaling rule."""
        return self.learning_rate * self.batch_factor

    @property
    def batch_factor(self):
        """What the linear scaling rule multiplies learning rates by."""
        return self.global_batch_size / self.REFERENCE_BATCH

    @property
    def trains(self):
        """Whether --mode is one that trains."""
        return self.mode in ("train", "train_and_eval")

    @property
    def takes_whole_model(self):
        """Whether --checkpoint is a model by itself, and no save of the run."""
        return not self.trains and self.checkpoint.endswith((".keras", ".h5"))

    def to_dict(self):
        return dataclasses.asdict(self)


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
    """Everything that decides a run of `recipes/imagenet.py`."""

    GROUPS: ClassVar[tuple] = _GROUPS
    PRESETS: ClassVar[dict] = PRESETS
    REFERENCE_BATCH: ClassVar[int] = 256


_LENGTHS = frozenset({"train_steps", "train_epochs"})


def make(preset, flags, kind=Config):
    """The config: defaults, changed by a preset, changed by flags.

    Args:
        preset: Dict of field values.
        flags: Dict of the field values that the user gave.
        kind: The class of the config.

    Raises:
        RecipeError: for a value that cannot be.
    """
    values = {**preset, **flags}
    # A length replaces that of the other kind, where nothing as near says it.
    for changes in (flags, preset):
        given = {key for key in _LENGTHS if changes.get(key) is not None}
        if given:
            for key in _LENGTHS - given - set(flags):
                values[key] = None
            break
    return kind(**values)
