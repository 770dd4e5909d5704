"""What a run is: its files, its images, its network, its devices."""

import dataclasses
from typing import Any

from recipes.setting import setting


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run and its files"""

    preset: str | None = setting(
        None, "Start from these settings; other flags change them."
    )
    mode: str = setting(
        "train_and_eval",
        "What to do; eval and export take the --checkpoint.",
        choices=("train_and_eval", "train", "eval", "export"),
    )
    workdir: str | None = setting(
        None,
        "Where the run's files go. A run that was stopped goes on from there. "
        "(default: runs/<dataset>-<model>-<norm>)",
    )
    dry_run: bool = setting(
        False,
        "Print the settings, parameters, batches, steps, learning rates and "
        "the speed of the input, and stop.",
    )
    checkpoint: str = setting(
        "last",
        "What --mode=eval and --mode=export take: last, best, a save "
        "(checkpoints/step_*.npz) or a .keras file.",
    )
    export_format: str = setting(
        "saved_model",
        "Of --mode=export.",
        choices=("saved_model", "litert", "onnx"),
    )
    seed: int = setting(0, "Of weights, order and augmentation.", low=0)
    deterministic: bool = setting(
        False, "Two runs give the same bits; slower on a GPU."
    )
    eval_every_epochs: int = setting(1, "How often to evaluate.", low=1)
    eval_every_steps: int | None = setting(
        None,
        "How often to evaluate, in steps; instead of epochs.",
        low=1,
    )
    log_every_steps: int = setting(
        50, "How often to write the values of a training step.", low=1
    )
    save_every_steps: int | None = setting(
        None, "How often to save. (default: after every epoch)", low=1
    )
    keep: int = setting(
        2, "How many of the newest saves to keep; the best stays too.", low=1
    )
    best_metric: str = setting(
        "accuracy",
        "The evaluation that chooses the best save.",
        choices=("accuracy", "top5_accuracy", "loss"),
    )
    profile_steps: str | None = setting(
        None, "A,B: write a TensorBoard profile of steps A to B."
    )


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Images and their augmentation"""

    dataset: str = setting(
        "imagenet2012",
        "A TFDS image classification set, folder:PATH (PATH/train/<label>/*.jpg"
        " and PATH/validation/<label>/*.jpg), digits (real, embedded) or fake.",
    )
    data_dir: str | None = setting(
        None, "Where TFDS keeps data. (default: TFDS' own)"
    )
    global_batch_size: int = setting(256, "Images a step, all replicas.", low=1)
    eval_batch_size: int | None = setting(
        None,
        "Images a step of the evaluation, all replicas. "
        "(default: as --global_batch_size)",
        low=1,
    )
    drop_remainder: bool = setting(
        True,
        "Leave out what does not fill the last batch of an epoch; otherwise "
        "that batch is filled with images of weight 0.",
    )
    image_size: int = setting(224, "Height and width of the input.", low=1)
    on_bad_image: str = setting(
        "fail",
        "What an image that cannot be decoded does; skip gives it weight 0. "
        "Either way it is named.",
        choices=("fail", "skip"),
    )
    augmentation: str = setting(
        "auto",
        "Of training images; auto takes what suits the dataset.",
        choices=("auto", "inception", "crop_flip", "crop", "none"),
    )
    rand_augment: float = setting(
        0,
        "Strength of RandAugment's two operations, 9 of 10 in its paper.",
        low=0,
        high=10,
    )
    color_jitter: float = setting(
        0,
        "Strength of random brightness, contrast, saturation and hue.",
        low=0,
        high=1,
    )
    random_erasing: float = setting(
        0, "Largest share of an image that is erased at random.", low=0, high=1
    )
    mixup: float = setting(
        0, "Alpha of mixup, 0.2 in its paper for ImageNet.", low=0
    )
    cutmix: float = setting(
        0,
        "Alpha of CutMix, 1 in its paper; with mixup each batch takes one of "
        "the two.",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Network and norm"""

    model: str = setting(
        "ResNet50V2",
        "A keras.applications model by name, resnet{8,20,32,56,...}_cifar "
        "(any 6n + 2), vgg_a, vgg_a_by8 (all widths divided by 8, or by "
        "another number).",
    )
    norm: str = setting(
        "frn",
        "The normalization: bn sync_bn brn eval_norm gn in ln frn rbn frozen "
        "none.",
    )
    norm_kwargs: dict[str, Any] = setting(
        {}, "Arguments of the norm layers, as JSON: '{\"epsilon\": 1e-5}'."
    )
    activation: str = setting(
        "auto",
        "Behind the norms of --model; auto takes TLU for frn, ReLU for others.",
        choices=("auto", "relu", "tlu"),
    )
    init_model: str | None = setting(
        None,
        "Start from this .keras or .h5 file, trained on images in [-1, 1], "
        "instead of --model and --norm. A head of another number of classes "
        "is replaced by a fresh one.",
    )
    convert_to: str | None = setting(
        None,
        "Convert the batch norm of --init_model to this norm first, weights "
        "kept; --norm_kwargs are its arguments.",
    )
    freeze: str | None = setting(
        None,
        "What is not trained: everything before the logits, or the norms.",
        choices=("backbone", "norm"),
    )


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """Devices and speed"""

    strategy: str = setting(
        "mirrored",
        "mirrored: one replica a device of this machine. multi_worker: of all "
        "the machines in the variable TF_CONFIG.",
        choices=("mirrored", "multi_worker", "tpu", "one_device"),
    )
    num_replicas: int | None = setting(
        None, "Replicas. (default: every GPU, or the virtual ones)", low=1
    )
    virtual_replicas: int | None = setting(
        None, "Split the CPU into that many logical devices.", low=1
    )
    precision: str = setting(
        "float32",
        "Keras dtype policy.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: bool = setting(
        False, "Compile the forward and backward pass with XLA."
    )
    steps_per_execution: int = setting(
        1,
        "Steps that the devices run by themselves, up to where a row is "
        "written or a save is made.",
        low=1,
    )
