"""`--calibration_images`: fits a converted model to the one it came from.

Runs once, before the first step of a run. The images are a fixed sample of the
training images, preprocessed as for evaluation. Several replicas share the
batches of a distillation; with several workers the chief's weights count.
"""

import contextlib

import keras

from keras_norm import variables
from recipes.training.recalibration import read_training_images


def calibrate(session):
    """Fits the model of `--convert_to` and assigns its weights.

    Args:
        session: The config, task, data, trainer, strategy and broadcast of the
            run. The trainer's model has copied weights.

    Raises:
        RecipeError: if the images or activations are not usable.
    """
    config, trainer = session.config, session.trainer
    print(f"fitting to {config.calibration_images:,} training images")
    fit = {
        "data": read_training_images(session.data, config.calibration_images),
        "epsilon_ratio": config.epsilon_ratio,
        "distill_steps": config.distill_steps,
        "distill_batch_size": config.global_batch_size,
    }
    broadcast, scope = session.broadcast, session.strategy.scope()
    if len(broadcast.workers.addresses) > 1:
        # Every worker distills alone.
        scope = contextlib.nullcontext()
    # A newly initialized head is that of the trainer's model.
    keras.utils.set_random_seed(config.seed)
    with scope:
        model = session.task.build_model(config, session.data, fit)
    values = [
        broadcast.array(variables.read_copy(variable))
        for variable in model.variables
    ]
    with session.strategy.scope():
        for variable, value in zip(
            trainer.model.variables, values, strict=True
        ):
            variables.assign_copy(variable, value)
        trainer.averages.reset()
