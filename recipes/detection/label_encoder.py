"""Encodes the boxes of an image as training targets of its anchors."""

import tensorflow as tf

from recipes.detection import boxes as boxes_lib

# Classes of anchors that are assigned to no box.
BACKGROUND = -1
IGNORED = -2
# IoU thresholds of RetinaNet (Lin et al. 2017, section 4).
MIN_POSITIVE_IOU = 0.5
MAX_BACKGROUND_IOU = 0.4
# Anchors with at least this fraction of their area in a crowd are ignored.
MIN_CROWD_COVERAGE = 0.5
# Number of IoUs computed at a time: 4 MiB. At 1024 pixels and 100 boxes, all of
# them would take 75 MiB, several times for each image in the pipeline.
BLOCK_SIZE = 2**20


def assign_targets(boxes, labels, is_crowd, anchors):
    """Assigns classes and deltas to the anchors of one image.

    An anchor is assigned to the box with the largest IoU if that is at least
    0.5. It is background below 0.4, and ignored in between (RetinaNet, Lin et
    al. 2017, section 4).

    In addition, each box is assigned the anchor with the largest IoU, however
    small, as in Faster R-CNN (Ren et al. 2015, section 3.1.2). Otherwise, small
    boxes would not be learned. If several boxes claim an anchor this way, the
    box with the largest IoU gets it. The first of equal IoUs always wins.

    Crowds are not assigned to anchors. An unassigned anchor with at least half
    of its area in a crowd is ignored.

    Args:
        boxes: float32 `(n, 4)`; n may be 0.
        labels: Integers `(n,)`.
        is_crowd: bool `(n,)`.
        anchors: float32 `(A, 4)` with a static shape.

    Returns:
        `(classes, deltas)`: int32 `(A,)`, the label of the assigned box,
        `BACKGROUND` or `IGNORED`; float32 `(A, 4)`, the deltas from an anchor
        to its box, 0 for unassigned anchors.
    """
    targets = tf.boolean_mask(boxes, ~is_crowd)
    labels = tf.cast(tf.boolean_mask(labels, ~is_crowd), tf.int32)
    overlaps, owners, claimed, claims = _match(targets, anchors)
    winners = _winners(claimed, claims)
    claimed = tf.gather(claimed, winners)[:, None]
    owners = tf.tensor_scatter_nd_update(owners, claimed, winners)
    is_positive = tf.tensor_scatter_nd_update(
        overlaps >= MIN_POSITIVE_IOU,
        claimed,
        tf.ones_like(winners, tf.bool),
    )
    is_background = (overlaps < MAX_BACKGROUND_IOU) & ~_is_crowded(
        tf.boolean_mask(boxes, is_crowd), anchors
    )
    # Gathers only for assigned anchors, because there may be no box at all.
    positives = tf.where(is_positive)
    owners = tf.gather_nd(owners, positives)
    classes = tf.tensor_scatter_nd_update(
        tf.where(is_background, BACKGROUND, IGNORED),
        positives,
        tf.gather(labels, owners),
    )
    deltas = boxes_lib.encode(
        tf.gather(targets, owners), tf.gather_nd(anchors, positives)
    )
    return classes, tf.tensor_scatter_nd_update(
        tf.zeros_like(anchors), positives, deltas
    )


def _match(boxes, anchors):
    """Finds the best box of each anchor and the best anchor of each box.

    Returns:
        `(overlaps, owners, claimed, claims)`: the largest IoU `(A,)` of each
        anchor, 0 without boxes; the index of that box, int32 `(A,)`; the index
        of each box's best anchor, int32 `(n,)`; and their IoU `(n,)`.
    """
    num_anchors = anchors.shape[0]
    block_size = max(BLOCK_SIZE // num_anchors, 1)
    num_boxes = tf.shape(boxes)[0]

    def block(first, overlaps, owners, claimed, claims):
        ious = boxes_lib.iou(boxes[first : first + block_size], anchors)
        largest = tf.reduce_max(ious, axis=0)
        best = tf.argmax(ious, axis=0, output_type=tf.int32) + first
        return (
            first + block_size,
            tf.maximum(overlaps, largest),
            tf.where(largest > overlaps, best, owners),
            tf.concat([claimed, tf.argmax(ious, 1, tf.int32)], axis=0),
            tf.concat([claims, tf.reduce_max(ious, axis=1)], axis=0),
        )

    _, *matches = tf.while_loop(
        lambda first, *_: first < num_boxes,
        block,
        (
            0,
            tf.zeros(num_anchors),
            tf.zeros(num_anchors, tf.int32),
            tf.zeros(0, tf.int32),
            tf.zeros(0),
        ),
        shape_invariants=tuple(
            tf.TensorShape(shape)
            for shape in ([], num_anchors, num_anchors, [None], [None])
        ),
        parallel_iterations=1,
    )
    return matches


def _winners(claimed, claims):
    """Returns the boxes that get the anchor they claim, int32 `(m,)`.

    Args:
        claimed: Index of the claimed anchor `(n,)` of each box.
        claims: Their IoU `(n,)`. A box with an IoU of 0 claims no anchor.
    """
    indices = tf.range(tf.size(claimed))
    is_larger = claims > claims[:, None]
    is_earlier = (claims == claims[:, None]) & (indices < indices[:, None])
    is_rival = claimed == claimed[:, None]
    is_beaten = tf.reduce_any(is_rival & (is_larger | is_earlier), axis=1)
    return tf.boolean_mask(indices, (claims > 0) & ~is_beaten)


def _is_crowded(crowds, anchors):
    """Returns a mask `(A,)` of the anchors inside a crowd `(n, 4)`."""

    def covered(before, crowd):
        coverage = boxes_lib.coverage(anchors, crowd[None])[:, 0]
        return before | (coverage >= MIN_CROWD_COVERAGE)

    nowhere = tf.zeros(anchors.shape[0], tf.bool)
    return tf.foldl(covered, crowds, nowhere, parallel_iterations=1)
