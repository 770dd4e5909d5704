"""Learning rates as functions of the step."""

import math

import keras
from keras import ops

from recipes.errors import RecipeError

# RBN's recipe divides the rate every 30 of 100 epochs.
STEP_EVERY = 0.3


@keras.saving.register_keras_serializable(package="keras_norm_recipes")
class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from 0 to a schedule's first value, then follows the schedule.

    Args:
        schedule: The schedule after the ramp; its step 0 is the ramp's end.
        ramp_steps: Length of the ramp.
        shape: `"cosine"`, `(1 - cos(pi * t)) / 2` as FRN's authors use, or
            `"linear"`, with `t` from 0 to 1.
    """

    def __init__(self, schedule, ramp_steps, shape):
        super().__init__()
        self.schedule = schedule
        self.ramp_steps = ramp_steps
        self.shape = shape

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = ops.minimum(step / self.ramp_steps, 1.0)
        if self.shape == "cosine":
            done = (1.0 - ops.cos(math.pi * done)) / 2.0
        after = ops.maximum(step - self.ramp_steps, 0.0)
        return done * self.schedule(after)

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "ramp_steps": self.ramp_steps,
            "shape": self.shape,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def make(config, num_steps, steps_per_epoch):
    """The schedule of a run.

    Args:
        config: A `RunConfig`. Its learning rates are those of its reference
            batch and grow with the batch, that of the end too.
        num_steps: Steps of the whole training, ramp included.
        steps_per_epoch: Steps an epoch, which the ramp's length is given in.

    Raises:
        RecipeError: for an end above the peak.
    """
    if config.end_learning_rate > config.learning_rate:
        raise RecipeError(
            "--end_learning_rate must be at most --learning_rate. Received: "
            f"end_learning_rate={config.end_learning_rate}, "
            f"learning_rate={config.learning_rate}"
        )
    ramp_steps = _ramp_steps(config, num_steps, steps_per_epoch)
    schedule = _SCHEDULES[config.schedule](config, num_steps, ramp_steps)
    if ramp_steps == 0:
        return schedule
    return Ramp(schedule, ramp_steps, config.warmup_shape)


def describe(config, num_steps, steps_per_epoch):
    """The rule behind the rates of `make`, whose arguments it takes."""
    ramp_steps = _ramp_steps(config, num_steps, steps_per_epoch)
    peak = (
        f"Peak {config.peak_learning_rate:g} = --learning_rate "
        f"{config.learning_rate:g} * global batch {config.global_batch_size} / "
        f"{config.REFERENCE_BATCH}."
    )
    falls = {
        "cosine": f"a cosine to {_end(config):g} at step {num_steps:,}",
        "polynomial": (
            f"a polynomial of power {config.polynomial_power:g} to "
            f"{_end(config):g} at step {num_steps:,}"
        ),
        "step": f"a tenth of it every {STEP_EVERY:.0%} of {num_steps:,} steps",
        "constant": f"constant to step {num_steps:,}",
    }[config.schedule]
    if ramp_steps == 0:
        return f"{peak} From the first step on {falls}."
    return (
        f"{peak} Rises from 0 over {ramp_steps:,} steps "
        f"({config.warmup_epochs:g} epochs, {config.warmup_shape}), then "
        f"{falls}."
    )


def _ramp_steps(config, num_steps, steps_per_epoch):
    return min(round(config.warmup_epochs * steps_per_epoch), num_steps)


def _cosine(config, num_steps, ramp_steps):
    peak = config.peak_learning_rate
    end = _end(config) / peak if peak else 0.0
    decay_steps = max(num_steps - ramp_steps, 1)
    return keras.optimizers.schedules.CosineDecay(peak, decay_steps, alpha=end)


def _polynomial(config, num_steps, ramp_steps):
    return keras.optimizers.schedules.PolynomialDecay(
        config.peak_learning_rate,
        max(num_steps - ramp_steps, 1),
        end_learning_rate=_end(config),
        power=config.polynomial_power,
    )


def _step(config, num_steps, ramp_steps):
    # Its steps are counted from the end of the ramp.
    boundaries = [
        max(round(i * STEP_EVERY * num_steps) - ramp_steps, 0)
        for i in (1, 2, 3)
    ]
    rates = [config.peak_learning_rate * 0.1**i for i in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)


def _constant(config, num_steps, ramp_steps):
    # Keras has no constant schedule; this one falls to 1.0 of its start.
    return keras.optimizers.schedules.CosineDecay(
        config.peak_learning_rate, 1, alpha=1.0
    )


def _end(config):
    return config.end_learning_rate * config.batch_factor


_SCHEDULES = {
    "cosine": _cosine,
    "polynomial": _polynomial,
    "step": _step,
    "constant": _constant,
}
