"""The evaluation of a detector: every image once, on any replicas."""

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
# AP of each class, of the newest evaluation; null where none is annotated.
PER_CLASS = "per_class.json"


class DetectionEvaluator:
    """COCO's numbers of a detector on the evaluation images.

    It leaves predictions.json, in COCO's format of results, and
    per_class.json in the workdir. Images that cannot be decoded, where those
    are skipped, do not count.

    Args:
        detector: A `Detector`.
        steps: Its `Steps`.

    Raises:
        RecipeError: if pycocotools is missing where the run will evaluate: now,
            and not after an epoch.
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
        """Values by name, and `examples`, the images that they are of."""
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
        """The `metric.Evaluation` of a split, and the number of its images."""
        annotations, predictions = self.detect(split)
        ids = self.data.source.category_ids
        path = self.config.folder / PREDICTIONS[split]
        coco_metric.write_predictions(path, annotations, predictions, ids)
        result = coco_metric.evaluate(annotations, predictions, ids)
        return result, len(annotations)

    def detect(self, split):
        """Annotations and `metric.Detections` of the images of a split."""
        every = getattr(self.data.source, split).annotations()
        found = {}
        size = self.data.eval_batch_size
        batches = self.steps.distributed(
            lambda context: self.data.evaluation(context, split)
        )
        for _ in range(-(-len(every) // size)):
            rows = {k: v.numpy() for k, v in self._run(next(batches)).items()}
            for row in np.flatnonzero(rows["weights"]):
                index = int(rows["indices"][row])
                one = {name: values[row] for name, values in rows.items()}
                found[index] = self._in_pixels(every[index], one)
        indices = sorted(found)
        return [every[i] for i in indices], [found[i] for i in indices]

    def _run_batch(self, batch):
        """What was found on the images of a batch, of all replicas."""
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

    def _in_pixels(self, annotation, row):
        """The detections of an image, in its own pixels."""
        sides = np.array([annotation.height, annotation.width])
        scaled = preprocessing.scaled_size(*sides, self.config.image_size)
        count = int(row["num_detections"])
        boxes = row["boxes"][:count] * np.tile(sides / scaled, 2)
        return coco_metric.Detections(
            boxes=np.clip(boxes, 0, np.tile(sides, 2)),
            scores=row["scores"][:count],
            labels=row["classes"][:count].astype(np.int64),
        )
