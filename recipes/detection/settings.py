"""What only a run of `recipes/coco.py` has, or has with another default."""

import dataclasses

from recipes.config.fields import DataSettings
from recipes.config.fields import NetworkSettings
from recipes.config.fields import OptimizerSettings
from recipes.config.fields import RunSettings
from recipes.config.fields import ScheduleSettings
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import setting


@dataclasses.dataclass(frozen=True)
class DetectionRunSettings(RunSettings):
    """The run and its files"""

    export_format: str = setting(
        "saved_model",
        "Of --mode=export; boxes are decoded and suppressed in the file.",
        choices=("saved_model", "onnx"),
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    best_metric: str = setting(
        "AP",
        "The evaluation that chooses the best save.",
        choices=("AP", "AP50", "AP75"),
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    eval_train: bool = setting(
        False,
        "Evaluate on the training images too, as training_AP and so on: what "
        "was learned, beside what it is worth elsewhere.",
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    score_threshold: float = setting(
        0.05,
        "Detections below that score are left out.",
        low=0,
        high=1,
        on_resume=MAY_CHANGE,
    )
    nms_threshold: float = setting(
        0.5,
        "Of two boxes of a class that overlap by more than this IoU, the one "
        "of the lower score is left out.",
        low=0,
        high=1,
        on_resume=MAY_CHANGE,
    )
    max_detections: int = setting(
        100,
        "Detections an image at most; COCO counts 100.",
        low=1,
        on_resume=MAY_CHANGE,
    )


@dataclasses.dataclass(frozen=True)
class DetectionDataSettings(DataSettings):
    """Images and their augmentation"""

    dataset: str = setting(
        "coco/2017",
        "A TFDS set with boxes, folder:PATH (COCO's JSON in PATH/annotations, "
        "or Roboflow's beside the images) or trees (real, small: tiles of "
        "aerial photos, fetched by pip).",
    )
    global_batch_size: int = setting(64, "Images a step, all replicas.", low=1)
    image_size: int = setting(
        1024,
        "Height and width of the input. Images are scaled to it by their "
        "longer side, and padded.",
        low=1,
    )
    flip: bool = setting(True, "Mirror training images at random.")
    scale_jitter_min: float = setting(
        1.0,
        "Training images are scaled by a random factor from this",
        low=0.05,
        high=20,
    )
    scale_jitter_max: float = setting(
        1.0,
        "to this; of a larger one a random part is taken.",
        low=0.05,
        high=20,
    )


@dataclasses.dataclass(frozen=True)
class DetectorSettings(NetworkSettings):
    """Network and norm"""

    model: str = setting(
        "ResNet50",
        "The backbone: ResNet50, ResNet101 or ResNet152 of keras.applications, "
        "or resnet_small.",
    )
    init_model: str | None = setting(
        None,
        "Start from this .keras or .h5 file, trained on images in [-1, 1]: a "
        "classifier, whose maps become the backbone, in the place of --model; "
        "or a detector of this program, in the place of the whole network.",
    )
    min_level: int = setting(
        3, "Finest level of the pyramid; level l has a stride of 2^l.", low=3
    )
    max_level: int = setting(
        7, "Coarsest level of the pyramid.", low=3, high=10
    )
    pyramid_filters: int = setting(
        256, "Channels of the pyramid and of the heads.", low=1
    )
    head_depth: int = setting(
        4, "Convolutions of a head before its last one.", low=0
    )
    anchor_size: float = setting(
        4.0, "Side of a level's smallest anchors, in strides.", low=0.1
    )


@dataclasses.dataclass(frozen=True)
class DetectionScheduleSettings(ScheduleSettings):
    """Length and learning rate"""

    learning_rate: float = setting(
        0.05, "Peak learning rate for a global batch of 64.", low=0
    )
    end_learning_rate: float = setting(
        0,
        "Where cosine and polynomial end, for a global batch of 64.",
        low=0,
    )
    train_epochs: float | None = setting(
        None, "How long to train, in epochs; instead of steps.", low=0
    )
    train_steps: int | None = setting(
        125_000, "How long to train, in steps.", low=1
    )


@dataclasses.dataclass(frozen=True)
class DetectionLossSettings(OptimizerSettings):
    """Losses, optimizer and step"""

    focal_alpha: float = setting(
        0.25, "Weight of the positives in the focal loss.", low=0, high=1
    )
    focal_gamma: float = setting(
        2.0, "How little the focal loss counts what is right.", low=0
    )
    huber_delta: float = setting(
        0.1, "Where the box loss turns from a square to a line.", low=1e-3
    )
    box_loss_weight: float = setting(
        50.0, "Weight of the mean box loss beside the class loss.", low=0
    )
    weight_decay: float = setting(
        4e-4,
        "sgd and rmsprop: L2 penalty, as decay * w in the gradient; adamw and "
        "lamb: decoupled.",
        low=0,
    )
