"""What a run is, whatever it trains: files, batches, network, devices."""

import dataclasses
from typing import Any

from keras_norm_cli import norm_names
from recipes.config.setting import setting


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run and its files"""

    preset: str | None = setting(
        None, "Start from these settings; other flags change them."
    )
    mode: str = setting(
        "train_and_eval",
        "What to do; eval, export and predict take the --checkpoint of the run "
        "in --workdir. predict writes what the network says of your own "
        "--images to predict.csv and predict.json in the workdir.",
        choices=("train_and_eval", "train", "eval", "export", "predict"),
    )
    images: str | None = setting(
        None,
        "Of --mode=predict: an image, or a folder of images and of folders.",
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
        "What --mode=eval, export and predict take: last, best, a save "
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
        "loss", "The evaluation that chooses the best save."
    )
    profile_steps: str | None = setting(
        None, "A,B: write a TensorBoard profile of steps A to B."
    )


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Images"""

    dataset: str = setting("", "A set of images.")
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
        "What an image does that cannot be decoded, or is not of the size "
        "that its boxes are annotated for; skip gives it weight 0. Either way "
        "it is named.",
        choices=("fail", "skip"),
    )


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Network and norm"""

    model: str = setting("", "A network by name.")
    norm: str = setting(
        "frn",
        f"Normalization layer, one of {', '.join(norm_names())}.",
    )
    norm_kwargs: dict[str, Any] = setting(
        {}, "Arguments of the norm layers, as JSON: '{\"epsilon\": 1e-5}'."
    )
    activation: str = setting(
        "auto",
        "Behind the norms of --model; auto takes TLU for frn, ReLU for others.",
        choices=("auto", "relu", "tlu"),
    )
    init_model: str | None = setting(None, "Start from this file.")
    convert_to: str | None = setting(
        None,
        "Convert the batch norm of --init_model to this norm first, weights "
        "kept; --norm_kwargs are its arguments. The norm of the name none is "
        "`keras-norm convert --to none`.",
    )
    freeze: str | None = setting(
        None,
        "What is not trained: the backbone, or the norms.",
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
