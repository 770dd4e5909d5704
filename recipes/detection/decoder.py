"""From what a network says of its anchors to the objects that it found."""

import keras
import tensorflow as tf

from recipes.detection import boxes as boxes_lib
from recipes.detection import retinanet

# Of all anchors so many, those of the highest scores, are looked at further.
NUM_CANDIDATES = 5000


class DetectionDecoder(keras.layers.Layer):
    """Decodes boxes and suppresses all but the best of those that overlap.

    For each class on its own: of two boxes whose IoU is above `nms_threshold`
    the one of the lower score goes. Boxes of different classes may overlap.

    Args:
        anchors: Array `(A, 4)`, see `anchors.Anchors`.
        image_size: Side of the images, in pixels.
        score_threshold: Lower scores are no detection.
        nms_threshold: The largest IoU of two detections of a class.
        max_detections: Detections of an image at most.

    Call arguments:
        inputs: What the network gives, a dict of `classes` `(batch, A, K)`
            logits and `boxes` `(batch, A, 4)` deltas.

    Returns:
        A dict of float32, for each image in the order of the scores, filled up
        with zeros:

        * `boxes`: `(batch, max_detections, 4)`, `[ymin, xmin, ymax, xmax]` in
          pixels of the input, within it.
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
    """The layer that a config asks for."""
    return DetectionDecoder(
        config.anchors.boxes,
        config.image_size,
        config.score_threshold,
        config.nms_threshold,
        config.max_detections,
        name="detections",
    )
