"""What only a run of `recipes/imagenet.py` has, or has with another default."""

import dataclasses

from recipes.classification.mixup import MixupSettings
from recipes.classification.random_augment import RandomAugmentSettings
from recipes.config.fields import DataSettings
from recipes.config.fields import NetworkSettings
from recipes.config.fields import RunSettings
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import setting


@dataclasses.dataclass(frozen=True)
class ClassificationRunSettings(RunSettings):
    """The run and its files"""

    best_metric: str = setting(
        "accuracy",
        "The evaluation that chooses the best save.",
        choices=("accuracy", "top5_accuracy", "loss"),
        on_resume=MAY_CHANGE,
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True)
class ClassificationDataSettings(
    MixupSettings, RandomAugmentSettings, DataSettings
):
    """Images and their augmentation"""

    dataset: str = setting(
        "imagenet2012",
        "A TFDS image classification set, folder:PATH (PATH/train/<label>/*.jpg"
        " and PATH/validation/<label>/*.jpg, read as "
        "keras.utils.image_dataset_from_directory does: JPEG, PNG, GIF, BMP "
        "and WebP files, turned upright by their EXIF), digits (real, "
        "embedded) or fake.",
    )
    augmentation: str = setting(
        "auto",
        "Of training images; auto takes what suits the dataset.",
        choices=("auto", "inception", "crop_flip", "crop", "none"),
    )
    label_smoothing: float = setting(
        0, "Share of the label given to all classes.", low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class ClassificationNetworkSettings(NetworkSettings):
    """Network and norm"""

    model: str = setting(
        "ResNet50V2",
        "A keras.applications model by name, resnet{8,20,32,56,...}_cifar "
        "(any 6n + 2), resnet_small, vgg_a, vgg_a_by8 (all widths divided by "
        "8, or by another number).",
    )
    init_model: str | None = setting(
        None,
        "Start from this .keras or .h5 file, trained on images in [-1, 1], "
        "instead of --model and --norm. A head of another number of classes "
        "is replaced by a fresh one.",
    )
