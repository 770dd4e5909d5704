"""Learning-rate schedules and warmup."""

import math

import keras
from keras import ops

from recipes.errors import RecipeError

# RBN's recipe divides the rate every 30 of 100 epochs.
STEP_EVERY = 0.3


@keras.saving.register_keras_serializable(package="keras_norm_recipes")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate warmup from 0, followed by another schedule.

    Args:
        schedule: The schedule after the warmup, which ends at its step 0.
        warmup_steps: Number of warmup steps.
        shape: `"cosine"`, `(1 - cos(pi * t)) / 2` as FRN's authors use, or
            `"linear"`, with `t` from 0 to 1.
    """

    def __init__(self, schedule, warmup_steps, shape):
        super().__init__()
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.shape = shape

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = ops.minimum(step / self.warmup_steps, 1.0)
        if self.shape == "cosine":
            done = (1.0 - ops.cos(math.pi * done)) / 2.0
        after = ops.maximum(step - self.warmup_steps, 0.0)
        return done * self.schedule(after)

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "warmup_steps": self.warmup_steps,
            "shape": self.shape,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def make_schedule(config, num_steps, steps_per_epoch):
    """Returns the learning-rate schedule of a run.

    Args:
        config: A `RunConfig`. Its learning rates are given for its reference
            batch and are scaled with the batch size.
        num_steps: Number of training steps, including warmup.
        steps_per_epoch: Number of steps per epoch.

    Raises:
        RecipeError: if the final learning rate is above the peak.
    """
    if config.end_learning_rate > config.learning_rate:
        raise RecipeError(
            "--end_learning_rate must be at most --learning_rate. Received: "
            f"end_learning_rate={config.end_learning_rate}, "
            f"learning_rate={config.learning_rate}"
        )
    warmup_steps = _warmup_steps(config, num_steps, steps_per_epoch)
    schedule = _SCHEDULES[config.schedule](config, num_steps, warmup_steps)
    if warmup_steps == 0:
        return schedule
    return Warmup(schedule, warmup_steps, config.warmup_shape)


def describe_schedule(config, num_steps, steps_per_epoch):
    """Returns a sentence on the schedule that `make_schedule` returns."""
    warmup_steps = _warmup_steps(config, num_steps, steps_per_epoch)
    peak = (
        f"Peak {config.peak_learning_rate:g} = --learning_rate "
        f"{config.learning_rate:g} * global batch {config.global_batch_size} / "
        f"{config.REFERENCE_BATCH}."
    )
    decay = {
        "cosine": f"a cosine to {_final_rate(config):g} at step {num_steps:,}",
        "polynomial": (
            f"a polynomial of power {config.polynomial_power:g} to "
            f"{_final_rate(config):g} at step {num_steps:,}"
        ),
        "step": f"a tenth of it every {STEP_EVERY:.0%} of {num_steps:,} steps",
        "constant": f"constant to step {num_steps:,}",
    }[config.schedule]
    if warmup_steps == 0:
        return f"{peak} From the first step on {decay}."
    return (
        f"{peak} Rises from 0 over {warmup_steps:,} steps "
        f"({config.warmup_epochs:g} epochs, {config.warmup_shape}), then "
        f"{decay}."
    )


def _warmup_steps(config, num_steps, steps_per_epoch):
    return min(round(config.warmup_epochs * steps_per_epoch), num_steps)


def _cosine(config, num_steps, warmup_steps):
    peak = config.peak_learning_rate
    end = _final_rate(config) / peak if peak else 0.0
    decay_steps = max(num_steps - warmup_steps, 1)
    return keras.optimizers.schedules.CosineDecay(peak, decay_steps, alpha=end)


def _polynomial(config, num_steps, warmup_steps):
    return keras.optimizers.schedules.PolynomialDecay(
        config.peak_learning_rate,
        max(num_steps - warmup_steps, 1),
        end_learning_rate=_final_rate(config),
        power=config.polynomial_power,
    )


def _step(config, num_steps, warmup_steps):
    # Boundaries are counted from the end of the warmup.
    boundaries = [
        max(round(i * STEP_EVERY * num_steps) - warmup_steps, 0)
        for i in (1, 2, 3)
    ]
    rates = [config.peak_learning_rate * 0.1**i for i in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)


def _constant(config, num_steps, warmup_steps):
    # Keras has no constant schedule; this one decays to 1.0 times its start.
    return keras.optimizers.schedules.CosineDecay(
        config.peak_learning_rate, 1, alpha=1.0
    )


def _final_rate(config):
    return config.end_learning_rate * config.batch_factor


_SCHEDULES = {
    "cosine": _cosine,
    "polynomial": _polynomial,
    "step": _step,
    "constant": _constant,
}
