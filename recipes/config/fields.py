"""Groups of settings that all training programs share."""

import dataclasses
from typing import Any

from keras_norm_cli import norm_names
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import MAY_EXTEND
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import setting


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run and its files"""

    preset: str | None = setting(
        None,
        "Start from the settings of a preset; other flags override them.",
        affects_result=False,
    )
    mode: str = setting(
        "train_and_eval",
        "What to do. eval, export and predict use the --checkpoint of the run "
        "in --workdir. predict writes predictions for your own --images to "
        "predict.csv and predict.json in the workdir.",
        choices=("train_and_eval", "train", "eval", "export", "predict"),
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    images: str | None = setting(
        None,
        "Image file or folder to predict with --mode=predict. Folders are "
        "searched recursively.",
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    workdir: str | None = setting(
        None,
        "Folder for the files of the run. If it holds an unfinished run, that "
        "run is resumed. (default: runs/<dataset>-<model>-<norm>)",
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    dry_run: bool = setting(
        False,
        "Print the settings, parameters, batches, steps, learning rates and "
        "the speed of the input pipeline, then stop without training.",
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    checkpoint: str = setting(
        "last",
        "Checkpoint to evaluate, export or predict with: last, best, a file "
        "checkpoints/step_*.npz or a .keras file.",
        on_resume=PER_COMMAND,
        affects_result=False,
    )
    seed: int = setting(
        0,
        "Random seed for initialization, shuffling and augmentation.",
        low=0,
    )
    deterministic: bool = setting(
        False,
        "Use deterministic TensorFlow operations, so that two runs give "
        "identical results. This is slower on a GPU.",
    )
    eval_every_epochs: int = setting(
        1,
        "Number of epochs from one evaluation to the next.",
        low=1,
        affects_result=False,
    )
    eval_every_steps: int | None = setting(
        None,
        "Number of steps from one evaluation to the next. Overrides "
        "--eval_every_epochs.",
        low=1,
        affects_result=False,
    )
    log_every_steps: int = setting(
        50,
        "Number of training steps from one metrics entry to the next.",
        low=1,
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    save_every_steps: int | None = setting(
        None,
        "Number of steps from one checkpoint to the next. (default: one "
        "checkpoint per epoch)",
        low=1,
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    keep: int = setting(
        2,
        "Number of recent checkpoints to keep. The best one is kept as well.",
        low=1,
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    best_metric: str = setting(
        "loss",
        "Evaluation metric that selects the best checkpoint.",
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    profile_steps: str | None = setting(
        None,
        "First and last step to profile for TensorBoard, such as 10,20.",
        on_resume=MAY_CHANGE,
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Images"""

    dataset: str = setting("", "Name of the image dataset.")
    data_dir: str | None = setting(
        None,
        "Folder in which TFDS stores datasets. (default: the folder of TFDS)",
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    global_batch_size: int = setting(
        256, "Number of images per step, over all replicas.", low=1
    )
    eval_batch_size: int | None = setting(
        None,
        "Number of images per evaluation step, over all replicas. (default: "
        "--global_batch_size)",
        low=1,
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
    drop_remainder: bool = setting(
        True,
        "Drop the last batch of an epoch if it is incomplete. Otherwise it is "
        "padded with images of weight 0.",
    )
    image_size: int = setting(
        224, "Height and width of the input in pixels.", low=1
    )
    on_bad_image: str = setting(
        "fail",
        "How to handle images that cannot be decoded, or whose size differs "
        "from the one they were annotated in. skip gives them weight 0. Their "
        "names are reported in both cases.",
        choices=("fail", "skip"),
        on_resume=MAY_CHANGE,
    )


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Network and norm"""

    model: str = setting("", "Name of the network.")
    norm: str = setting(
        "frn", "Normalization layer of --model.", choices=tuple(norm_names())
    )
    norm_kwargs: dict[str, Any] = setting(
        {},
        "Arguments of the norm layers as JSON, such as '{\"epsilon\": 1e-5}'.",
    )
    activation: str = setting(
        "auto",
        "Activation after the norms of --model. auto selects TLU for frn and "
        "ReLU for every other norm.",
        choices=("auto", "relu", "tlu"),
    )
    init_model: str | None = setting(
        None, "Model file from which training starts."
    )
    convert_to: str | None = setting(
        None,
        "Norm to which the batch norms of --init_model are converted before "
        "training, keeping the weights. --norm_kwargs are its arguments. To "
        "remove batch norms, use `keras-norm convert --to none`.",
        choices=tuple(name for name in norm_names() if name != "none"),
    )
    calibration_images: int = setting(
        0,
        "Number of training images to which the model of --convert_to is "
        "fitted before training, without labels, so that it reproduces the "
        "outputs of --init_model. 256 are enough without --distill_steps. 0 "
        "copies the weights alone.",
        low=0,
    )
    epsilon_ratio: float = setting(
        0.0,
        "Learned epsilon of --convert_to=frn, relative to the mean square of a "
        "channel on the --calibration_images. The larger it is, the closer the "
        "network stays to --init_model. 0 is the fixed epsilon of the paper.",
        low=0,
    )
    distill_steps: int = setting(
        0,
        "Number of steps of training towards the outputs of --init_model on "
        "the --calibration_images, before the training with labels.",
        low=0,
    )
    freeze: str | None = setting(
        None,
        "Part of the network that is not trained.",
        choices=("backbone", "norm"),
    )


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """Length and learning rate"""

    train_epochs: float | None = setting(
        90,
        "Length of training in epochs.",
        low=0,
        on_resume=MAY_EXTEND,
    )
    train_steps: int | None = setting(
        None,
        "Length of training in steps. Overrides --train_epochs.",
        low=1,
        on_resume=MAY_EXTEND,
    )
    learning_rate: float = setting(
        0.1, "Peak learning rate for a global batch of 256.", low=0
    )
    end_learning_rate: float = setting(
        0,
        "Final learning rate of the cosine and polynomial schedules, for a "
        "global batch of 256.",
        low=0,
    )
    schedule: str = setting(
        "cosine",
        "Learning-rate schedule. step divides the rate by 10 every 30% of "
        "training.",
        choices=("cosine", "step", "polynomial", "constant"),
    )
    polynomial_power: float = setting(
        2, "Power of the polynomial schedule. 1 is linear decay.", low=0
    )
    warmup_epochs: float = setting(
        0,
        "Length of the learning-rate warmup from 0 to the peak, in epochs.",
        low=0,
    )
    warmup_shape: str = setting(
        "cosine",
        "Shape of the learning-rate warmup.",
        choices=("cosine", "linear"),
    )


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and step"""

    optimizer: str = setting(
        "sgd",
        "Optimizer that updates the weights.",
        choices=("sgd", "lamb", "adamw", "rmsprop"),
    )
    momentum: float = setting(
        0.9, "Momentum of the sgd and rmsprop optimizers.", low=0, high=1
    )
    weight_decay: float = setting(
        1e-4,
        "Weight decay. sgd and rmsprop add decay * w to the gradient (an L2 "
        "penalty); adamw and lamb use decoupled weight decay.",
        low=0,
    )
    norm_weight_decay: bool = setting(
        False, "Apply weight decay to the weights of norms and TLUs as well."
    )
    clip_norm: float | None = setting(
        None, "Largest norm of each weight's gradient.", low=0
    )
    clip_global_norm: float | None = setting(
        None, "Largest global norm of all gradients.", low=0
    )
    clip_value: float | None = setting(
        None, "Largest absolute value of a gradient's elements.", low=0
    )
    grad_accum_steps: int = setting(
        1,
        "Number of microbatches into which each per-replica batch is split for "
        "gradient accumulation. Batch norms see one microbatch at a time.",
        low=1,
    )
    ema_decay: float | None = setting(
        None,
        "Decay of an exponential moving average of weights and moving "
        "statistics. The decay at a step is min(decay, (1 + step) / (10 + "
        "step)).",
        low=0,
        high=1,
    )
    use_ema: bool = setting(
        True,
        "Use the averages of --ema_decay for evaluation, model.keras and "
        "export.",
        on_resume=MAY_CHANGE,
    )
    recalibrate: bool = setting(
        False,
        "Recompute the moving statistics of batch normalization after "
        "training, before the last evaluation and export, from "
        "--recalibrate_images training images without augmentation.",
    )
    recalibrate_images: int = setting(
        1000,
        "Number of training images for --recalibrate, spread evenly over the "
        "training images.",
        low=1,
    )
    nan_policy: str = setting(
        "stop",
        "How to handle a loss or gradient that is not finite: stop training, "
        "or skip the update on every replica and count it.",
        choices=("stop", "skip"),
    )


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """Devices and speed"""

    strategy: str = setting(
        "mirrored",
        "Distribution strategy. mirrored uses one replica per device of this "
        "machine; multi_worker uses all machines in the variable TF_CONFIG.",
        choices=("mirrored", "multi_worker", "tpu", "one_device"),
        on_resume=MAY_CHANGE,
    )
    num_replicas: int | None = setting(
        None,
        "Number of replicas over which each batch is split. (default: the "
        "number of GPUs or virtual replicas)",
        low=1,
        on_resume=MAY_CHANGE,
    )
    virtual_replicas: int | None = setting(
        None,
        "Number of logical devices into which the CPU is split.",
        low=1,
        on_resume=MAY_CHANGE,
    )
    precision: str = setting(
        "float32",
        "Keras dtype policy of the network.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: bool = setting(
        False, "Compile the forward and backward pass with XLA."
    )
    steps_per_execution: int = setting(
        1,
        "Number of steps that run on the devices without returning to Python. "
        "Logging, evaluation and checkpoints interrupt them.",
        low=1,
        on_resume=MAY_CHANGE,
        affects_result=False,
    )
