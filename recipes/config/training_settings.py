"""How a run trains: length, learning rate, optimizer, what guards the step."""

import dataclasses

from recipes.config.setting import setting


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """Length and learning rate"""

    train_epochs: float | None = setting(
        90, "How long to train, in epochs.", low=0
    )
    train_steps: int | None = setting(
        None, "How long to train, in steps; instead of epochs.", low=1
    )
    learning_rate: float = setting(
        0.1, "Peak learning rate for a global batch of 256.", low=0
    )
    end_learning_rate: float = setting(
        0,
        "Where cosine and polynomial end, for a global batch of 256.",
        low=0,
    )
    schedule: str = setting(
        "cosine",
        "Of the learning rate; step divides it by 10 every 30% of training.",
        choices=("cosine", "step", "polynomial", "constant"),
    )
    polynomial_power: float = setting(
        2, "Of --schedule=polynomial; 1 is a straight line.", low=0
    )
    warmup_epochs: float = setting(
        0, "Length of the ramp from 0 to the peak.", low=0
    )
    warmup_shape: str = setting(
        "cosine", "Shape of the ramp.", choices=("cosine", "linear")
    )


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and step"""

    optimizer: str = setting(
        "sgd", "The update rule.", choices=("sgd", "lamb", "adamw", "rmsprop")
    )
    momentum: float = setting(
        0.9, "Momentum of sgd and rmsprop.", low=0, high=1
    )
    weight_decay: float = setting(
        1e-4,
        "sgd and rmsprop: L2 penalty, as decay * w in the gradient; adamw and "
        "lamb: decoupled.",
        low=0,
    )
    norm_weight_decay: bool = setting(
        False, "Whether weights of norms and thresholds decay too."
    )
    clip_norm: float | None = setting(
        None, "Largest norm of the gradient of each weight.", low=0
    )
    clip_global_norm: float | None = setting(
        None, "Largest norm of the gradients of all weights.", low=0
    )
    clip_value: float | None = setting(
        None, "Largest absolute value in a gradient.", low=0
    )
    grad_accum_steps: int = setting(
        1,
        "Parts that a replica's share of the batch is computed in, one after "
        "the other; batch norms see the parts.",
        low=1,
    )
    ema_decay: float | None = setting(
        None,
        "Keep moving averages of weights and moving statistics, with "
        "min(decay, (1 + step) / (10 + step)).",
        low=0,
        high=1,
    )
    use_ema: bool = setting(
        True,
        "Whether evaluation, model.keras and export take the averages, where "
        "--ema_decay keeps them.",
    )
    nan_policy: str = setting(
        "stop",
        "What a loss or gradient that is not finite does: stop there, or skip "
        "that update on every replica and count it.",
        choices=("stop", "skip"),
    )
