"""Settings of `recipes/coco.py`: additional ones and other defaults."""

import dataclasses

from recipes.config.fields import DataSettings
from recipes.config.fields import NetworkSettings
from recipes.config.fields import OptimizerSettings
from recipes.config.fields import RunSettings
from recipes.config.fields import ScheduleSettings
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import MAY_EXTEND
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import setting
from recipes.export.formats import FORMATS
from recipes.export.formats import ExportSettings


@dataclasses.dataclass(frozen=True)
class DetectionRunSettings(ExportSettings, RunSettings):
    """The run and its files"""

    export_format: str = setting(
        "saved_model",
        "File format of --mode=export. The exported model decodes boxes and "
        "applies non-maximum suppression.",
        choices=tuple(
            name for name, each in FORMATS.items() if each.supports_nms
        ),
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    best_metric: str = setting(
        "AP",
        "Evaluation metric that selects the best checkpoint.",
        choices=("AP", "AP50", "AP75"),
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    eval_train: bool = setting(
        False,
        "Also evaluate on the training images. The metrics have the prefix "
        "training_.",
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    score_threshold: float = setting(
        0.05,
        "Detections with a lower score are discarded.",
        low=0,
        high=1,
        on_resume=MAY_CHANGE,
    )
    nms_threshold: float = setting(
        0.5,
        "IoU threshold of non-maximum suppression: of two boxes of a class "
        "with a larger IoU, the one with the lower score is discarded.",
        low=0,
        high=1,
        on_resume=MAY_CHANGE,
    )
    max_detections: int = setting(
        100,
        "Maximum number of detections per image. COCO evaluates 100.",
        low=1,
        on_resume=MAY_CHANGE,
    )


@dataclasses.dataclass(frozen=True)
class DetectionDataSettings(DataSettings):
    """Images and their augmentation"""

    dataset: str = setting(
        "coco/2017",
        "A TFDS dataset with boxes; folder:PATH, a folder with COCO JSON files "
        "in PATH/annotations or a Roboflow export; or trees, a small dataset "
        "of tiles of aerial photos, downloaded by pip.",
    )
    global_batch_size: int = setting(
        64, "Number of images per step, over all replicas.", low=1
    )
    image_size: int = setting(
        1024,
        "Height and width of the model input. Images are scaled so that the "
        "longer side fits, and padded.",
        low=1,
    )
    flip: bool = setting(True, "Randomly flip training images horizontally.")
    scale_jitter_min: float = setting(
        1.0,
        "Lower bound of the random scale factor of training images.",
        low=0.05,
        high=20,
    )
    scale_jitter_max: float = setting(
        1.0,
        "Upper bound of the random scale factor of training images. Images "
        "larger than --image_size are randomly cropped.",
        low=0.05,
        high=20,
    )


@dataclasses.dataclass(frozen=True)
class DetectorSettings(NetworkSettings):
    """Network and norm"""

    model: str = setting(
        "ResNet50",
        "Backbone: ResNet50, ResNet101 or ResNet152 of keras.applications, or "
        "resnet_small.",
    )
    init_model: str | None = setting(
        None,
        "Initial model, a .keras or .h5 file trained on images in [-1, 1]. A "
        "classifier becomes the backbone instead of --model; a detector of "
        "this program replaces the whole model.",
    )
    min_level: int = setting(
        3,
        "Finest level of the feature pyramid. Level l has a stride of 2^l.",
        low=3,
    )
    max_level: int = setting(
        7, "Coarsest level of the feature pyramid.", low=3, high=10
    )
    pyramid_filters: int = setting(
        256, "Number of channels in the feature pyramid and the heads.", low=1
    )
    head_depth: int = setting(
        4, "Number of convolutions in each head before the last one.", low=0
    )
    anchor_size: float = setting(
        4.0,
        "Side of a level's smallest anchors, in strides of the level.",
        low=0.1,
    )


@dataclasses.dataclass(frozen=True)
class DetectionScheduleSettings(ScheduleSettings):
    """Length and learning rate"""

    learning_rate: float = setting(
        0.05, "Peak learning rate for a global batch of 64.", low=0
    )
    end_learning_rate: float = setting(
        0,
        "Final learning rate of the cosine and polynomial schedules for a "
        "global batch of 64.",
        low=0,
    )
    train_epochs: float | None = setting(
        None,
        "Number of epochs to train, instead of --train_steps.",
        low=0,
        on_resume=MAY_EXTEND,
    )
    train_steps: int | None = setting(
        125_000,
        "Number of steps to train.",
        low=1,
        on_resume=MAY_EXTEND,
    )


@dataclasses.dataclass(frozen=True)
class DetectionLossSettings(OptimizerSettings):
    """Losses, optimizer and step"""

    focal_alpha: float = setting(
        0.25, "Weight of positive anchors in the focal loss.", low=0, high=1
    )
    focal_gamma: float = setting(
        2.0,
        "Focusing parameter of the focal loss. Larger values down-weight "
        "well-classified anchors.",
        low=0,
    )
    huber_delta: float = setting(
        0.1,
        "Error above which the Huber loss of boxes is linear instead of "
        "quadratic.",
        low=1e-3,
    )
    box_loss_weight: float = setting(
        50.0, "Weight of the mean box loss relative to the class loss.", low=0
    )
    weight_decay: float = setting(
        4e-4,
        "Weight decay: an L2 penalty (decay * w in the gradient) for sgd and "
        "rmsprop, decoupled for adamw and lamb.",
        low=0,
    )
