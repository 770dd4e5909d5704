"""`--calibration_images`: fits a converted model to the one it came from.

Runs once, before the first step of a run. The images are a fixed sample of the
training images, preprocessed as for evaluation. Several replicas share the
batches of a distillation; with several workers the chief's weights count.
"""

import contextlib

import keras

from keras_norm import variables
from recipes.training.recalibration import read_training_images


def calibrate(config, task, data, trainer, strategy, broadcast):
    """Fits the model of `--convert_to` and assigns its weights.

    Args:
        config: The config of the run.
        task: Its `Task`.
        data: Its `Data`.
        trainer: Its `Trainer`, whose model has the copied weights.
        strategy: Its `tf.distribute.Strategy`.
        broadcast: Its `ChiefBroadcast`.

    Raises:
        RecipeError: if the images or activations are not usable.
    """
    print(f"fitting to {config.calibration_images:,} training images")
    fit = {
        "data": read_training_images(data, config.calibration_images),
        "epsilon_ratio": config.epsilon_ratio,
        "distill_steps": config.distill_steps,
        "distill_batch_size": config.global_batch_size,
    }
    scope = strategy.scope()
    if len(broadcast.workers.addresses) > 1:
        # Every worker distills alone.
        scope = contextlib.nullcontext()
    # A newly initialized head is that of the trainer's model.
    keras.utils.set_random_seed(config.seed)
    with scope:
        model = task.build_model(config, data, fit)
    values = [
        broadcast.array(variables.read_copy(variable))
        for variable in model.variables
    ]
    with strategy.scope():
        for variable, value in zip(
            trainer.model.variables, values, strict=True
        ):
            variables.assign_copy(variable, value)
        trainer.averages.reset()
