"""The configuration of a run: what flags and presets say, checked once."""

import dataclasses
import pathlib
from typing import Any

from recipes.errors import RecipeError
from recipes.errors import unknown


def _flag(default, help, choices=None, low=None, high=None):
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run. Each field is a flag of that name."""

    preset: str | None = _flag(
        None, "Start from these settings; other flags change them."
    )
    mode: str = _flag(
        "train_and_eval",
        "What to do; eval takes the model in the workdir.",
        choices=("train_and_eval", "train", "eval"),
    )
    workdir: str | None = _flag(
        None,
        "Where the run's files go. A run that was stopped goes on from there. "
        "(default: runs/<dataset>-<model>-<norm>)",
    )
    dataset: str = _flag(
        "imagenet2012",
        "A TFDS image classification set, folder:PATH (PATH/train/<label>/*.jpg"
        " and PATH/validation/<label>/*.jpg), digits (real, embedded) or fake.",
    )
    data_dir: str | None = _flag(
        None, "Where TFDS keeps data. (default: TFDS' own)"
    )
    model: str = _flag(
        "ResNet50V2",
        "A keras.applications model by name, resnet{8,20,32,56}_cifar, vgg_a.",
    )
    init_model: str | None = _flag(
        None,
        "Start from this .keras or .h5 file, trained on images in [-1, 1], "
        "instead of --model and --norm. A head of another number of classes "
        "is replaced by a fresh one.",
    )
    convert_to: str | None = _flag(
        None,
        "Convert the batch norm of --init_model to this norm first, weights "
        "kept; --norm_kwargs are its arguments.",
    )
    norm: str = _flag(
        "frn",
        "The normalization: bn sync_bn brn eval_norm gn in ln frn rbn frozen "
        "none.",
    )
    norm_kwargs: dict[str, Any] = _flag(
        {}, "Arguments of the norm layers, as JSON: '{\"epsilon\": 1e-5}'."
    )
    global_batch_size: int = _flag(256, "Images a step, all replicas.", low=1)
    train_epochs: float | None = _flag(
        90, "How long to train, in epochs.", low=0
    )
    train_steps: int | None = _flag(
        None, "How long to train, in steps; instead of epochs.", low=1
    )
    learning_rate: float = _flag(
        0.1, "Peak learning rate for a global batch of 256.", low=0
    )
    schedule: str = _flag(
        "cosine",
        "Of the learning rate; step divides it by 10 every 30% of training.",
        choices=("cosine", "step", "constant"),
    )
    warmup_epochs: float = _flag(
        0, "Length of the ramp from 0 to the peak.", low=0
    )
    warmup_shape: str = _flag(
        "cosine", "Shape of the ramp.", choices=("cosine", "linear")
    )
    momentum: float = _flag(0.9, "Momentum of SGD.", low=0, high=1)
    weight_decay: float = _flag(
        1e-4, "L2 penalty on weights, as decay * w in the gradient.", low=0
    )
    norm_weight_decay: bool = _flag(
        False, "Whether weights of norms and thresholds decay too."
    )
    label_smoothing: float = _flag(
        0, "Share of the label given to all classes.", low=0, high=1
    )
    image_size: int = _flag(224, "Height and width of the input.", low=1)
    augmentation: str = _flag(
        "auto",
        "Of training images; auto takes what suits the dataset.",
        choices=("auto", "inception", "crop_flip", "crop", "none"),
    )
    precision: str = _flag(
        "float32",
        "Keras dtype policy.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    strategy: str = _flag(
        "mirrored",
        "mirrored: one replica a device.",
        choices=("mirrored", "one_device"),
    )
    num_replicas: int | None = _flag(
        None, "Replicas. (default: every GPU, or the virtual ones)", low=1
    )
    virtual_replicas: int | None = _flag(
        None, "Split the CPU into that many logical devices.", low=1
    )
    seed: int = _flag(0, "Of weights, order and augmentation.", low=0)
    eval_every_epochs: int = _flag(1, "How often to evaluate.", low=1)
    log_every_steps: int = _flag(
        50, "How often to write the values of a training step.", low=1
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.convert_to is not None and self.init_model is None:
            raise RecipeError(
                "--convert_to converts the model of --init_model: give that "
                f"too, or --norm. Received: convert_to={self.convert_to}"
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


def _check(field, value):
    choices = field.metadata["choices"]
    if choices is not None and value not in choices:
        raise unknown(f"--{field.name}", str(value), choices)
    low, high = field.metadata["low"], field.metadata["high"]
    if value is None or low is None:
        return
    if not low <= value <= (high if high is not None else float("inf")):
        upper = "" if high is None else f" and at most {high}"
        raise RecipeError(
            f"--{field.name} must be at least {low}{upper}. "
            f"Received: {field.name}={value}"
        )
