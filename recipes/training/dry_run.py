"""What a run would do, as text."""

import textwrap

from recipes.data import input_pipeline as data_lib
from recipes.training import schedules

# Learning rates are shown at so many steps.
NUM_RATES = 11
WIDTH = 40


def describe(config, data, trainer, strategy):
    """The settings, the sizes, the learning rates and the speed of the input.

    Args:
        config: A `Config`.
        data: Its `Data`.
        trainer: Its `Trainer`.
        strategy: Its strategy.
    """
    replicas = strategy.num_replicas_in_sync
    weights = trainer.model.trainable_variables
    trainable = sum(weight.shape.num_elements() for weight in weights)
    share = config.global_batch_size // replicas
    parts = config.grad_accum_steps
    accumulated = f", in {parts} parts of {share // parts}" if parts > 1 else ""
    settings = "\n".join(
        f"  --{name}={value}"
        for name, value in config.to_dict().items()
        if value not in (None, {})
    )
    return "\n".join(
        [
            "settings",
            settings,
            (
                f"network        {' with '.join(config.network)}: "
                f"{trainer.model.count_params():,} parameters, "
                f"{trainable:,} trained"
            ),
            (
                f"images         {data.num_train:,} for training, "
                f"{data.num_eval:,} for evaluation, {data.image_shape}, "
                f"{data.num_classes} classes"
            ),
            (
                f"replicas       {replicas}, each {share} images a step"
                f"{accumulated}"
            ),
            (
                f"steps          {data.num_steps:,}, {data.steps_per_epoch:,} "
                f"an epoch, {data.num_epochs} epochs"
            ),
            "learning rate",
            textwrap.indent(_rates(config, data), "  "),
            f"input alone    {data_lib.measure_rate(data):,.0f} images/s",
            "dry run: nothing was trained",
        ]
    )


def _rates(config, data):
    """A line a step: its learning rate as a number and as a bar."""
    rate = schedules.make(config, data.num_steps, data.steps_per_epoch)
    last = data.num_steps - 1
    steps = sorted(
        {round(i * last / (NUM_RATES - 1)) for i in range(NUM_RATES)}
    )
    values = [float(rate(step)) for step in steps]
    highest = max(values) or 1.0
    return "\n".join(
        f"step {step + 1:>8,}  {value:<10.4g} "
        f"{'#' * round(WIDTH * value / highest)}".rstrip()
        for step, value in zip(steps, values, strict=True)
    )
