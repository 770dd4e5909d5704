"""The configuration of a run: what flags and presets say, checked once."""

import dataclasses
import pathlib

from recipes.errors import RecipeError
from recipes.setting import check
from recipes.settings import DataSettings
from recipes.settings import DeviceSettings
from recipes.settings import NetworkSettings
from recipes.settings import RunSettings
from recipes.training_settings import OptimizerSettings
from recipes.training_settings import ScheduleSettings

# The groups of settings, in the order of `--help`; the first line of each
# docstring is its heading.
GROUPS = (
    RunSettings,
    DataSettings,
    NetworkSettings,
    ScheduleSettings,
    OptimizerSettings,
    DeviceSettings,
)


@dataclasses.dataclass(frozen=True)
class Config(*reversed(GROUPS)):
    """Everything that decides a run. Each field is a flag of that name."""

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
        return self.learning_rate * self.global_batch_size / 256

    def to_dict(self):
        return dataclasses.asdict(self)


def make(preset, flags):
    """The config: defaults, changed by a preset, changed by flags.

    Args:
        preset: Dict of field values.
        flags: Dict of the field values that the user gave.

    Raises:
        RecipeError: for a value that cannot be.
    """
    values = {**preset, **flags}
    # A length given by hand replaces the preset's length of the other kind.
    if "train_steps" in flags and "train_epochs" not in flags:
        values["train_epochs"] = None
    elif "train_epochs" in flags and "train_steps" not in flags:
        values["train_steps"] = None
    elif "train_steps" in preset and "train_epochs" not in values:
        values["train_epochs"] = None
    return Config(**values)
