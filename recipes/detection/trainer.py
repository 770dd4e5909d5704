"""The loss of a detector, and what it logs."""

import tensorflow as tf

from keras_norm.distribution import all_reduce_sum
from recipes.detection import losses
from recipes.detection import retinanet
from recipes.detection.evaluator import DetectionEvaluator
from recipes.training.trainer import Trainer
from recipes.training.trainer import mean


class DetectorTrainer(Trainer):
    """A RetinaNet under training.

    With P the positive anchors of the global batch, over all replicas and
    workers, its loss is

        (sum of focal losses + box_loss_weight * sum of box losses / 4) / P

    whatever replica has how many of them. P is counted as 1 where there is
    none.

    Args:
        model: Functional model, see `retinanet.make`.
        config: A `DetectionConfig`.
        data: Its `Data`.
        pads: Whether training batches may hold images of weight 0.
    """

    VALUES = ("loss", "class_loss", "box_loss", "positives")

    def __init__(self, model, config, data, pads):
        super().__init__(model, config, pads)
        self.config = config
        self.data = data

    def evaluation(self, steps):
        return DetectionEvaluator(self, steps)

    def train_step(self, batch):
        images, targets, weights = batch
        positives = losses.count_positives(targets["classes"])
        rows, total = all_reduce_sum(
            [tf.reduce_sum(weights), tf.reduce_sum(positives)]
        )
        # A step takes the mean over rows: their number cancels.
        share = tf.math.divide_no_nan(rows, tf.maximum(total, 1.0))
        targets = {
            **targets,
            "share": tf.fill(tf.shape(weights), share),
            "positives": positives,
        }
        return super().train_step((images, targets, weights))

    def part_loss(self, x, y, y_pred, weights):
        class_loss = losses.focal_loss(
            y["classes"],
            y_pred[retinanet.CLASSES],
            self.config.focal_alpha,
            self.config.focal_gamma,
        )
        box_loss = losses.huber_loss(
            y["classes"],
            y["deltas"],
            y_pred[retinanet.BOXES],
            self.config.huber_delta,
        )
        class_loss *= y["share"]
        box_loss *= y["share"] * self.config.box_loss_weight / 4.0
        values = {
            "loss": class_loss + box_loss,
            "class_loss": class_loss,
            "box_loss": box_loss,
            "positives": y["positives"],
        }
        means = {name: mean(v, weights) for name, v in values.items()}
        return means["loss"] + self.penalty(), means
