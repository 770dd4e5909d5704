"""Decodes the outputs of a detector into detections."""

import keras
import tensorflow as tf

from recipes.detection import boxes as boxes_lib
from recipes.detection import retinanet

# Only the anchors with the highest scores are decoded, up to this number.
NUM_CANDIDATES = 5000


class DetectionDecoder(keras.layers.Layer):
    """Decodes boxes and applies non-maximum suppression per class.

    If the IoU of two boxes of a class is above `nms_threshold`, the one with
    the lower score is removed. Boxes of different classes may overlap.

    Args:
        anchors: Array `(A, 4)`, see `anchors.Anchors`.
        image_size: Side of the square images, in pixels.
        score_threshold: Detections with a lower score are removed.
        nms_threshold: Largest IoU of two detections of a class.
        max_detections: Maximum number of detections per image.

    Call arguments:
        inputs: Outputs of a detector, a dict of the logits `classes`
            `(batch, A, K)` and the deltas `boxes` `(batch, A, 4)`.

    Returns:
        A dict of float32, sorted by decreasing score and padded with zeros:

        * `boxes`: `(batch, max_detections, 4)`, `[ymin, xmin, ymax, xmax]` in
          pixels of the input image, clipped to it.
        * `scores`: `(batch, max_detections)`, from 0 to 1.
        * `classes`: `(batch, max_detections)`, labels from 0.
        * `num_detections`: `(batch,)`.
    """

    def __init__(
        self,
        anchors,
        image_size,
        score_threshold,
        nms_threshold,
        max_detections,
        **kwargs,
    ):
        super().__init__(dtype="float32", **kwargs)
        self.anchors = anchors
        self.image_size = image_size
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    def call(self, inputs):
        scores = tf.sigmoid(inputs[retinanet.CLASSES])
        deltas = inputs[retinanet.BOXES]
        anchors = tf.constant(self.anchors)
        if len(self.anchors) > NUM_CANDIDATES:
            best = tf.reduce_max(scores, axis=-1)
            chosen = tf.math.top_k(best, NUM_CANDIDATES).indices
            scores = tf.gather(scores, chosen, batch_dims=1)
            deltas = tf.gather(deltas, chosen, batch_dims=1)
            anchors = tf.gather(anchors, chosen)
        size = self.image_size
        boxes = boxes_lib.clip(boxes_lib.decode(deltas, anchors), size, size)
        boxes, scores, classes, count = tf.image.combined_non_max_suppression(
            boxes[:, :, None],
            scores,
            max_output_size_per_class=self.max_detections,
            max_total_size=self.max_detections,
            iou_threshold=self.nms_threshold,
            score_threshold=self.score_threshold,
            clip_boxes=False,
        )
        return {
            "boxes": boxes,
            "scores": scores,
            "classes": classes,
            "num_detections": tf.cast(count, tf.float32),
        }


def make_decoder(config):
    """Returns the `DetectionDecoder` for a config."""
    return DetectionDecoder(
        config.anchors.boxes,
        config.image_size,
        config.score_threshold,
        config.nms_threshold,
        config.max_detections,
        name="detections",
    )
