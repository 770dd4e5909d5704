"""The base class of configs, and configs made from presets and flags."""

import dataclasses
import pathlib
from typing import ClassVar

from recipes.config.setting import MAY_EXTEND
from recipes.config.setting import check_value
from recipes.config.setting import fields_by_resume_rule
from recipes.errors import RecipeError
from recipes.errors import unknown_name_error


class RunConfig:
    """Base class of the configs of all training programs.

    A program's config is a frozen dataclass that inherits from this class and
    from its groups of settings. Each field is a flag of the same name.

    Attributes:
        PROGRAM: Name of the entry point, such as `"imagenet"`.
        GROUPS: The groups of settings, in the order of `--help`, which takes
            the first line of each docstring as heading.
        PRESETS: Dict from preset names to dicts of settings.
        REFERENCE_BATCH: Global batch size that learning rates are given for.
    """

    PROGRAM: ClassVar[str]
    GROUPS: ClassVar[tuple]
    PRESETS: ClassVar[dict]
    REFERENCE_BATCH: ClassVar[int]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name))
        if self.convert_to is not None and self.init_model is None:
            raise RecipeError(
                "--convert_to converts the model of --init_model: give that "
                f"too, or --norm. Received: convert_to={self.convert_to}"
            )
        if self.calibration_images and self.convert_to is None:
            raise RecipeError(
                "--calibration_images needs --convert_to, the norm of the "
                "model to fit. Received: calibration_images="
                f"{self.calibration_images}"
            )
        for name in ("epsilon_ratio", "distill_steps"):
            if getattr(self, name) and not self.calibration_images:
                raise RecipeError(
                    f"--{name} needs --calibration_images, such as 256. "
                    f"Received: {name}={getattr(self, name)}"
                )
        if self.epsilon_ratio and self.convert_to != "frn":
            raise RecipeError(
                "--epsilon_ratio is for --convert_to=frn. "
                f"Received: convert_to={self.convert_to}"
            )
        if self.activation != "auto" and self.init_model is not None:
            raise RecipeError(
                "--activation applies to a new --model; the model of "
                "--init_model keeps its own. "
                f"Received: activation={self.activation}"
            )
        if (self.train_steps is None) == (self.train_epochs is None):
            raise RecipeError(
                "training needs a length: either train_epochs or train_steps. "
                f"Received: train_epochs={self.train_epochs}, "
                f"train_steps={self.train_steps}"
            )

    @property
    def folder(self):
        """Path of the workdir."""
        if self.workdir is not None:
            return pathlib.Path(self.workdir).expanduser()
        dataset = self.dataset.replace(":", "-").replace("/", "-")
        return pathlib.Path("runs") / f"{dataset}-{'-'.join(self.network)}"

    @property
    def network(self):
        """Tuple of the names of the network and its norm."""
        if self.init_model is None:
            return self.model, self.norm
        name = pathlib.Path(self.init_model).stem
        return (name, self.convert_to) if self.convert_to else (name,)

    @property
    def peak_learning_rate(self):
        """Learning rate after linear scaling with the batch size."""
        return self.learning_rate * self.batch_factor

    @property
    def batch_factor(self):
        """Factor of the linear scaling rule for learning rates."""
        return self.global_batch_size / self.REFERENCE_BATCH

    @property
    def trains(self):
        """True if `--mode` trains."""
        return trains(self.mode)

    @property
    def takes_whole_model(self):
        """True if `--checkpoint` is a model file, not a run's checkpoint."""
        return not self.trains and self.checkpoint.endswith((".keras", ".h5"))

    def with_model(self, path, **changes):
        """Returns a copy whose network is that of a finished model's file."""
        return dataclasses.replace(
            self,
            init_model=str(path),
            convert_to=None,
            calibration_images=0,
            epsilon_ratio=0.0,
            distill_steps=0,
            **changes,
        )

    def to_dict(self):
        return dataclasses.asdict(self)

    def check_names(self):
        """Checks the names of the dataset and of the model; opens neither.

        Raises:
            RecipeError: if one of them is unknown.
        """
        raise NotImplementedError


def get_preset(config_class, name):
    """Returns the settings of a preset; an empty dict for None.

    Raises:
        RecipeError: if the preset is unknown.
    """
    if name is None:
        return {}
    if name not in config_class.PRESETS:
        raise unknown_name_error("preset", name, config_class.PRESETS)
    return {"preset": name, **config_class.PRESETS[name]}


def trains(mode):
    """Returns True if a `--mode` trains; None is the default mode."""
    return mode in (None, "train", "train_and_eval")


def make_config(config_class, settings, preset=None):
    """Returns a config: defaults, changed by a preset, changed by settings.

    Args:
        config_class: The config class.
        settings: Dict of the settings that the user gave.
        preset: Dict of settings that they take precedence over.

    Raises:
        RecipeError: if a value is illegal.
    """
    preset = preset or {}
    values = {**preset, **settings}
    # train_steps and train_epochs exclude each other: the one from the source
    # of higher precedence unsets the other.
    lengths = set(fields_by_resume_rule(config_class, MAY_EXTEND))
    for source in (settings, preset):
        given = {name for name in lengths if source.get(name) is not None}
        if given:
            for name in lengths - given - set(settings):
                values[name] = None
            break
    return config_class(**values)
