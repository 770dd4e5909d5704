"""`--dry_run`: a description of a run without training."""

import textwrap

from recipes.data import input_pipeline
from recipes.training import learning_rate

# Number of steps for which the learning rate is shown.
NUM_RATES = 11
BAR_WIDTH = 40


def describe(config, data, trainer, strategy):
    """Returns the settings, sizes, learning rates and input speed as text.

    Args:
        config: The config of the run.
        data: Its `Data`.
        trainer: Its `Trainer`.
        strategy: Its `tf.distribute` strategy.
    """
    replicas = strategy.num_replicas_in_sync
    weights = trainer.model.trainable_variables
    trainable = sum(weight.shape.num_elements() for weight in weights)
    replica_batch_size = config.global_batch_size // replicas
    accumulated = ""
    if config.grad_accum_steps > 1:
        accumulated = (
            f", in {config.grad_accum_steps} microbatches of "
            f"{replica_batch_size // config.grad_accum_steps}"
        )
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
                f"replicas       {replicas}, each {replica_batch_size} images "
                f"a step{accumulated}"
            ),
            (
                f"steps          {data.num_steps:,}, {data.steps_per_epoch:,} "
                f"an epoch, {data.num_epochs} epochs"
            ),
            "learning rate",
            textwrap.indent(_rates(config, data), "  "),
            f"input alone    {input_pipeline.measure_rate(data):,.0f} images/s",
            "dry run: nothing was trained",
        ]
    )


def _rates(config, data):
    """Returns lines with learning rates, as numbers and as bars."""
    rate = learning_rate.make_schedule(
        config, data.num_steps, data.steps_per_epoch
    )
    last = data.num_steps - 1
    steps = sorted(
        {round(i * last / (NUM_RATES - 1)) for i in range(NUM_RATES)}
    )
    values = [float(rate(step)) for step in steps]
    highest = max(values) or 1.0
    return "\n".join(
        f"step {step + 1:>8,}  {value:<10.4g} "
        f"{'#' * round(BAR_WIDTH * value / highest)}".rstrip()
        for step, value in zip(steps, values, strict=True)
    )
