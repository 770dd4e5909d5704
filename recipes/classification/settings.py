"""Settings that only `recipes/imagenet.py` has, or has with other defaults."""

import dataclasses

from recipes.classification.datasets import DatasetSettings
from recipes.classification.mixup import MixupSettings
from recipes.classification.preprocessing import PreprocessingSettings
from recipes.classification.random_augment import RandomAugmentSettings
from recipes.config.fields import DataSettings
from recipes.config.fields import NetworkSettings
from recipes.config.fields import RunSettings
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import setting
from recipes.export.formats import ExportSettings


@dataclasses.dataclass(frozen=True)
class ClassificationRunSettings(ExportSettings, RunSettings):
    """The run and its files"""

    best_metric: str = setting(
        "accuracy",
        "Evaluation metric that selects the best checkpoint.",
        choices=("accuracy", "top5_accuracy", "loss"),
        on_resume=MAY_CHANGE,
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True)
class ClassificationDataSettings(
    MixupSettings,
    RandomAugmentSettings,
    PreprocessingSettings,
    DatasetSettings,
    DataSettings,
):
    """Images and their augmentation"""

    label_smoothing: float = setting(
        0,
        "Fraction of each label that is distributed evenly over all classes.",
        low=0,
        high=1,
    )


@dataclasses.dataclass(frozen=True)
class ClassificationNetworkSettings(NetworkSettings):
    """Network and norm"""

    model: str = setting(
        "ResNet50V2",
        "Network to train: any keras.applications model with batch "
        "normalization, or a network of recipes/models/classifiers.py such as "
        "resnet20_cifar. The error for an unknown name lists all of them.",
    )
    init_model: str | None = setting(
        None,
        "Model file (.keras or .h5) from which training starts, instead of "
        "--model and --norm. It must take images in [-1, 1]. A head with "
        "another number of classes is replaced by a newly initialized one.",
    )
