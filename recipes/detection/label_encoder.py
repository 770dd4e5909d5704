"""What each anchor of an image has to learn."""

import tensorflow as tf

from recipes.detection import boxes as boxes_lib

# The classes of anchors that belong to no box: there is nothing there, or
# nothing is asked.
BACKGROUND = -1
IGNORED = -2
# Overlaps as in RetinaNet (Lin et al. 2017, section 4): a box's from here on,
# and background below.
MIN_POSITIVE_IOU = 0.5
MAX_BACKGROUND_IOU = 0.4
# The share of an anchor in a crowd from which on nothing is asked of it.
MIN_CROWD_COVERAGE = 0.5
# Overlaps that are looked at together: 4 MiB. At 1024 pixels and 100 boxes all
# of them would be 75 MiB, several times over in each image on its way.
BLOCK_SIZE = 2**20


def assign_targets(boxes, labels, is_crowd, anchors):
    """Classes and deltas of the anchors of one image.

    An anchor belongs to the box with which it overlaps most, the first of
    equals, if their IoU is at least 0.5. It is background below 0.4, and
    ignored in between (RetinaNet, Lin et al. 2017, section 4).

    Besides, each box has the anchor that overlaps it most, the first of equals,
    however little that is, as in Faster R-CNN (Ren et al. 2015, section 3.1.2):
    else small boxes would not be learned. Among boxes that claim one anchor so,
    the one of the largest IoU gets it, the first of equals.

    A crowd is a target for no anchor. One that belongs to no box and lies in a
    crowd by at least half of its area is ignored.

    Args:
        boxes: float32 `(n, 4)`; n may be 0.
        labels: Integers `(n,)`.
        is_crowd: bool `(n,)`.
        anchors: float32 `(A, 4)`, where A is known when the graph is built.

    Returns:
        Classes int32 `(A,)`: the label of an anchor's box, `BACKGROUND` or
        `IGNORED`. Deltas float32 `(A, 4)` from an anchor to its box, 0 where it
        has none.
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
    # What there is no box for must not be gathered: there may be none at all.
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
    """The largest overlaps of anchors and of boxes.

    Returns:
        IoU `(A,)` of each anchor with its box, 0 if there is none; that box's
        number `(A,)`; the number `(n,)` of each box's anchor, and their IoU
        `(n,)`. Numbers are int32.
    """
    num_anchors = anchors.shape[0]
    num_together = max(BLOCK_SIZE // num_anchors, 1)
    num_boxes = tf.shape(boxes)[0]

    def block(first, overlaps, owners, claimed, claims):
        ious = boxes_lib.iou(boxes[first : first + num_together], anchors)
        largest = tf.reduce_max(ious, axis=0)
        of_block = tf.argmax(ious, axis=0, output_type=tf.int32) + first
        return (
            first + num_together,
            tf.maximum(overlaps, largest),
            tf.where(largest > overlaps, of_block, owners),
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
    """The boxes that get the anchor they claim, int32 `(m,)`.

    Args:
        claimed: The anchor `(n,)` of each box.
        claims: Their IoU `(n,)`; a claim of 0 is none.
    """
    numbers = tf.range(tf.size(claimed))
    is_larger = claims > claims[:, None]
    is_earlier = (claims == claims[:, None]) & (numbers < numbers[:, None])
    is_rival = claimed == claimed[:, None]
    is_beaten = tf.reduce_any(is_rival & (is_larger | is_earlier), axis=1)
    return tf.boolean_mask(numbers, (claims > 0) & ~is_beaten)


def _is_crowded(crowds, anchors):
    """Whether an anchor, bool `(A,)`, lies in one of the crowds `(n, 4)`."""

    def covered(before, crowd):
        coverage = boxes_lib.coverage(anchors, crowd[None])[:, 0]
        return before | (coverage >= MIN_CROWD_COVERAGE)

    nowhere = tf.zeros(anchors.shape[0], tf.bool)
    return tf.foldl(covered, crowds, nowhere, parallel_iterations=1)
