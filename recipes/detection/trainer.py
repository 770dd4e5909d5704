"""Loss and training metrics of a detector."""

import tensorflow as tf

from keras_norm.distribution import all_reduce_sum
from recipes.detection import losses
from recipes.detection import retinanet
from recipes.detection.evaluator import DetectionEvaluator
from recipes.training.trainer import Trainer
from recipes.training.trainer import weighted_mean


class DetectorTrainer(Trainer):
    """Trainer of a RetinaNet.

    With P, the number of positive anchors in the global batch over all replicas
    and workers, the loss is

        (sum of focal losses + box_loss_weight * sum of box losses / 4) / P

    independent of their distribution over the replicas. Without positive
    anchors, P is 1.

    Args:
        model: Functional model, see `retinanet.make`.
        config: A `DetectionConfig`.
        data: The `Data` of the run.
        pads: Whether training batches may contain images of weight 0.
    """

    METRICS = ("loss", "class_loss", "box_loss", "positives")

    def __init__(self, model, config, data, pads):
        super().__init__(model, config, pads)
        self.config = config
        self.data = data

    def make_evaluator(self, steps):
        return DetectionEvaluator(self, steps)

    def train_step(self, batch):
        images, targets, weights = batch
        positives = losses.count_positives(targets["classes"])
        num_examples, total = all_reduce_sum(
            [tf.reduce_sum(weights), tf.reduce_sum(positives)]
        )
        # A step averages over the examples, so that their number cancels.
        normalizer = tf.math.divide_no_nan(num_examples, tf.maximum(total, 1.0))
        targets = {
            **targets,
            "normalizer": tf.fill(tf.shape(weights), normalizer),
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
        class_loss *= y["normalizer"]
        box_loss *= y["normalizer"] * self.config.box_loss_weight / 4.0
        values = {
            "loss": class_loss + box_loss,
            "class_loss": class_loss,
            "box_loss": box_loss,
            "positives": y["positives"],
        }
        means = {name: weighted_mean(v, weights) for name, v in values.items()}
        return means["loss"] + self.penalty(), means
