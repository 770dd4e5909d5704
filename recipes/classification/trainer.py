"""Loss, metrics and evaluation of a classifier."""

import numpy as np
import tensorflow as tf

from recipes.classification import class_metrics
from recipes.training.trainer import Trainer
from recipes.training.trainer import weighted_mean


class Classifier(Trainer):
    """Trainer of a classifier.

    Evaluation counts every example of weight 1 once.

    Args:
        model: Functional model from images to logits.
        config: Config of the run.
        pads: True if training batches may have images of weight 0.
    """

    METRICS = ("loss", "accuracy", "top5_accuracy")

    def __init__(self, model, config, pads):
        super().__init__(model, config, pads)
        self.config = config
        self.label_smoothing = config.label_smoothing

    def part_loss(self, x, y, y_pred, weights):
        values = self.values(y, y_pred)
        means = {name: weighted_mean(v, weights) for name, v in values.items()}
        return means["loss"] + self.penalty(), means

    def make_evaluator(self, steps):
        return ClassifierEvaluator(self, steps)

    def totals(self, batch):
        """Returns the summed metrics of a batch, and its predictions.

        The predictions are float32 `(N, 4)`: label, predicted label, its
        probability and weight of every example.
        """
        images, labels, weights = batch
        with self.inference_weights():
            logits = self.model(images, training=False)
        values = self.values(labels, logits)
        sums = {k: tf.reduce_sum(v * weights) for k, v in values.items()}
        predicted = tf.math.top_k(logits).indices[:, 0]
        scores = tf.reduce_max(tf.nn.softmax(logits), axis=-1)
        columns = (labels, predicted, scores, weights)
        predictions = tf.stack(
            [tf.cast(c, tf.float32) for c in columns], axis=-1
        )
        return {**sums, "examples": tf.reduce_sum(weights)}, predictions

    def values(self, labels, logits):
        """Returns the loss and accuracies of every example.

        Args:
            labels: Classes `(N,)`, or probabilities `(N, classes)`.
            logits: `(N, classes)`.
        """
        num_classes = logits.shape[-1]
        targets = labels
        if labels.shape.rank == 1:
            targets = tf.one_hot(labels, num_classes)
        else:
            labels = tf.argmax(labels, axis=-1)
        smoothing = self.label_smoothing
        targets = targets * (1.0 - smoothing) + smoothing / num_classes
        return {
            "loss": tf.nn.softmax_cross_entropy_with_logits(targets, logits),
            "accuracy": _hits(labels, logits, 1),
            "top5_accuracy": _hits(labels, logits, min(5, num_classes)),
        }


class ClassifierEvaluator:
    """Evaluates a classifier; metrics are means over all examples.

    Writes evaluation.json to the workdir, see `class_metrics`.

    Args:
        classifier: A `Classifier`.
        steps: `Steps` of the classifier.
    """

    def __init__(self, classifier, steps):
        self.classifier = classifier
        self.steps = steps
        self._add = tf.function(self._add_batch, autograph=False)

    def __call__(self):
        """Returns the metrics of all evaluation examples, and their number."""
        data = self.steps.data
        batches = self.steps.distribute(data.evaluation)
        names = (*self.classifier.METRICS, "examples")
        totals, predictions = {name: tf.zeros([]) for name in names}, []
        for _ in range(data.num_eval_batches):
            totals, new = self._add(next(batches), totals)
            predictions.append(new)
        self._write(np.concatenate(predictions))
        totals = {name: float(total) for name, total in totals.items()}
        examples = totals.pop("examples")
        values = {k: v / max(examples, 1.0) for k, v in totals.items()}
        return {**values, "examples": int(examples)}

    def _write(self, predictions):
        folder, source = self.classifier.config.folder, self.steps.data.source
        if folder.is_dir():
            names = source.class_names
            metrics = class_metrics.compute_class_metrics(
                predictions, names, source.evaluation.name
            )
            class_metrics.write_class_metrics(folder, metrics)

    def _add_batch(self, batch, totals):
        strategy = self.steps.strategy
        sums, predictions = strategy.run(self.classifier.totals, (batch,))
        totals = {
            name: totals[name]
            + strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in sums.items()
        }
        return totals, strategy.gather(predictions, axis=0)


def _hits(labels, logits, k):
    # tf.math.in_top_k counts ties as hits, so equal logits would give 100%.
    best = tf.cast(tf.math.top_k(logits, k).indices, labels.dtype)
    hit = tf.reduce_any(best == labels[:, None], axis=-1)
    return tf.cast(hit, tf.float32)
