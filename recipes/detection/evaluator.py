"""Evaluates a detector with COCO metrics on every image exactly once."""

import json
import math

import numpy as np
import tensorflow as tf

from recipes import atomic_io
from recipes.detection import coco_metric
from recipes.detection import decoder
from recipes.detection import preprocessing

PREDICTIONS = {
    "evaluation": "predictions.json",
    "train": "training_predictions.json",
}
# AP of each class in the latest evaluation; null for classes without boxes.
PER_CLASS = "per_class.json"


class DetectionEvaluator:
    """Computes the COCO metrics of a detector on the evaluation images.

    Writes predictions.json, in COCO's results format, and per_class.json to the
    workdir. Skipped images are excluded.

    Args:
        detector: A `DetectorTrainer`.
        steps: The compiled steps of the run.

    Raises:
        RecipeError: if pycocotools is missing. Raised before training, not
            after the first epoch.
    """

    def __init__(self, detector, steps):
        self.detector = detector
        self.config = detector.config
        if self.config.mode != "train":
            coco_metric.require_pycocotools()
        self.data = detector.data
        self.steps = steps
        self.layer = decoder.make_decoder(self.config)
        self._run = tf.function(self._run_batch, autograph=False)

    def __call__(self):
        """Returns the metrics by name; `examples` is the number of images."""
        result, num_images = self._evaluate("evaluation")
        per_class = result.per_class(self.data.source.class_names)
        # JSON has no NaN.
        per_class = {
            name: None if math.isnan(value) else value
            for name, value in per_class.items()
        }
        text = json.dumps(per_class, indent=2) + "\n"
        atomic_io.write_text(self.config.folder / PER_CLASS, text)
        values = {**result.summary, "examples": num_images}
        if self.config.eval_train:
            trained, _ = self._evaluate("train")
            values |= {f"training_{k}": v for k, v in trained.summary.items()}
        return values

    def _evaluate(self, split):
        """Returns the `Evaluation` of a split and its number of images."""
        annotations, predictions = self.detect(split)
        ids = self.data.source.category_ids
        path = self.config.folder / PREDICTIONS[split]
        coco_metric.write_predictions(path, annotations, predictions, ids)
        result = coco_metric.evaluate(annotations, predictions, ids)
        return result, len(annotations)

    def detect(self, split):
        """Returns the lists of `Annotation`s and `Detections` of a split."""
        annotations = getattr(self.data.source, split).annotations()
        found = {}
        size = self.data.eval_batch_size
        batches = self.steps.distribute(
            lambda context: self.data.evaluation(context, split)
        )
        for _ in range(-(-len(annotations) // size)):
            outputs = self._run(next(batches))
            outputs = {k: v.numpy() for k, v in outputs.items()}
            for i in np.flatnonzero(outputs["weights"]):
                index = int(outputs["indices"][i])
                one = {name: values[i] for name, values in outputs.items()}
                found[index] = self._scale_to_image(annotations[index], one)
        indices = sorted(found)
        return [annotations[i] for i in indices], [found[i] for i in indices]

    def _run_batch(self, batch):
        """Returns the detections on a global batch, from all replicas."""
        strategy = self.steps.strategy
        found = strategy.run(self._detect, (batch,))
        return {
            name: strategy.gather(values, axis=0)
            for name, values in found.items()
        }

    def _detect(self, batch):
        images, indices, weights = batch
        with self.detector.inference_weights():
            outputs = self.detector.model(images, training=False)
        found = self.layer(outputs)
        return {**found, "indices": indices, "weights": weights}

    def _scale_to_image(self, annotation, outputs):
        """Returns the `Detections` of an image in its original pixels."""
        sides = np.array([annotation.height, annotation.width])
        scaled = preprocessing.scaled_size(*sides, self.config.image_size)
        count = int(outputs["num_detections"])
        boxes = outputs["boxes"][:count] * np.tile(sides / scaled, 2)
        return coco_metric.Detections(
            boxes=np.clip(boxes, 0, np.tile(sides, 2)),
            scores=outputs["scores"][:count],
            labels=outputs["classes"][:count].astype(np.int64),
        )
