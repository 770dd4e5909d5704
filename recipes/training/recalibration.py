"""`--recalibrate`: moving statistics from training images, after training.

They are computed from a fixed sample of training images, preprocessed as for
evaluation, on every worker alike. So the result depends neither on the replicas
nor on where a run was interrupted.
"""

import math
import time

from keras_norm import variables as variables_lib
from keras_norm.data.batches import make_batches
from keras_norm.errors import ConversionError
from keras_norm.graphs import graph
from keras_norm.recalibration.recalibrate import find_statistics
from keras_norm.recalibration.recalibrate import recalibrate_in_place
from recipes.errors import RecipeError

# Limit of the images that stay in memory between the passes.
MAX_BYTES = 2**31


def check_model(config, model):
    """Raises a `RecipeError` if `--recalibrate` does not fit the model."""
    if not config.recalibrate:
        return
    found = find_statistics(model) if graph.is_graph_model(model) else []
    outside = [item.path for item in found if item.node is None]
    if not found or outside:
        reason = (
            f"{outside[0]} is outside the graph of the model"
            if outside
            else "no layer of the model has moving statistics"
        )
        raise RecipeError(
            f"--recalibrate: {reason}. Leave it out, or choose --norm=bn, "
            f"sync_bn, brn, eval_norm or rbn. Received: norm={config.norm}"
        )


def recalibrate(config, data, trainer, strategy):
    """Recomputes the statistics of the weights and of their averages.

    Args:
        config: The config of the run.
        data: Its `Data`.
        trainer: Its `Trainer`.
        strategy: Its `tf.distribute.Strategy`.

    Raises:
        RecipeError: if the images or activations are not usable.
    """
    started = time.perf_counter()
    model, averages = trainer.model, trainer.averages
    found = find_statistics(model)
    images = _Images(data, config.recalibrate_images)
    try:
        # Decoding images for each pass takes longer than the pass.
        fits = images.num_bytes <= MAX_BYTES
        batches = make_batches(model, iter(images) if fits else images)
        with strategy.scope():
            report = _recompute(model, found, batches)
            if averages.variables:
                with averages.swapped_in():
                    _recompute(model, found, batches)
                    values = _read(found)
                for average, variable in zip(
                    averages.averages, averages.variables, strict=True
                ):
                    if id(variable) in values:
                        variables_lib.assign_copy(average, values[id(variable)])
    except ConversionError as error:
        raise RecipeError(f"--recalibrate: {error}") from error
    print(
        f"recalibrated {len(found)} layers with {report.num_examples:,} "
        f"training images in {time.perf_counter() - started:.0f} s"
    )


class _Images:
    """Batches of training images that can be read several times."""

    def __init__(self, data, number):
        self._data = data
        self._number = min(number, data.num_train)
        self.num_bytes = 4 * self._number * math.prod(data.image_shape)

    def __len__(self):
        return -(-self._number // self._data.eval_batch_size)

    def __iter__(self):
        return read_training_images(self._data, self._number)


def read_training_images(data, number):
    """Yields batches of training images, preprocessed as for evaluation.

    Args:
        data: The `Data` of the run.
        number: Number of images, spread evenly over the training split.
    """
    for images, _, weights in data.training_sample(number):
        # The last batch is padded with images of weight 0.
        images = images.numpy()[weights.numpy() > 0]
        if len(images):
            yield images


def _recompute(model, found, batches):
    # The training loop has a progress bar of its own.
    return recalibrate_in_place(
        model, found, batches, "exact", 0.0, shows_progress=False
    )


def _read(found):
    """Returns a dict from the ids of statistics to their values."""
    return {
        id(variable): variables_lib.read_copy(variable)
        for item in found
        for variable in item.layer.non_trainable_variables
    }
