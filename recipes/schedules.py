"""Learning rates as functions of the step."""

import math

import keras
from keras import ops

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
        config: A `Config`.
        num_steps: Steps of the whole training, ramp included.
        steps_per_epoch: Steps an epoch, which the ramp's length is given in.
    """
    peak = config.peak_learning_rate
    ramp_steps = min(round(config.warmup_epochs * steps_per_epoch), num_steps)
    decay_steps = max(num_steps - ramp_steps, 1)
    schedules = keras.optimizers.schedules
    if config.schedule == "cosine":
        schedule = schedules.CosineDecay(peak, decay_steps)
    elif config.schedule == "step":
        boundaries = [
            max(round(i * STEP_EVERY * num_steps) - ramp_steps, 0)
            for i in (1, 2, 3)
        ]
        rates = [peak * 0.1**i for i in range(4)]
        schedule = schedules.PiecewiseConstantDecay(boundaries, rates)
    else:
        # Keras has no constant schedule; this one falls to 1.0 of its start.
        schedule = schedules.CosineDecay(peak, decay_steps, alpha=1.0)
    if ramp_steps == 0:
        return schedule
    return Ramp(schedule, ramp_steps, config.warmup_shape)
