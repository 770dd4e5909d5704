"""Mixup and CutMix: batches whose images and labels are mixed in pairs.

Pairs are made within one input pipeline's share of the global batch, before it
is split between replicas: the number of replicas of a machine changes nothing,
the number of workers does. An image of weight 0 has no partner and is none's.
"""

import tensorflow as tf
from keras import layers

from recipes.data import stateless


def make_mixup(config, num_classes, pipeline):
    """`f(step, batch)` that mixes a batch, or None where no flag asks.

    Labels become float32 `(n, num_classes)`. The draws follow from the seed of
    the config, the step and the number of the pipeline.
    """
    seeds = stateless.Seeds()
    mixers = []
    if config.mixup:
        mixers.append(layers.MixUp(config.mixup, dtype="float32"))
    if config.cutmix:
        layer = layers.CutMix(dtype="float32")
        # Keras draws the alpha of its beta distribution from this range, and
        # takes none above 1.
        layer.factor = (config.cutmix, config.cutmix)
        mixers.append(layer)
    if not mixers:
        return None
    for layer in mixers:
        stateless.bind(layer, seeds)

    def mix(step, batch):
        images, labels, weights = batch
        labels = tf.one_hot(labels, num_classes)
        seed = tf.stack([tf.constant(config.seed, tf.int64), step])
        seeds.start(tf.random.fold_in(seed, pipeline))
        which = tf.random.stateless_uniform(
            (), seeds.next(), maxval=len(mixers), dtype=tf.int32
        )
        images, labels = tf.switch_case(
            which,
            [
                lambda layer=layer: _mix(layer, images, labels, weights)
                for layer in mixers
            ],
        )
        return images, labels, weights

    return mix


def _mix(layer, images, labels, weights):
    drawn = layer.get_random_transformation({"images": images})
    order = tf.cast(drawn["permutation_order"], tf.int32)
    counts = (weights > 0) & (tf.gather(weights, order) > 0)
    order = tf.where(counts, order, tf.range(tf.size(order)))
    drawn["permutation_order"] = order
    if "batch_masks" in drawn:
        # Keras takes the area of the box before it falls on whole pixels.
        pasted = tf.cast(drawn["batch_masks"], tf.float32)
        drawn["mix_weight"] = 1.0 - tf.reduce_mean(pasted, (1, 2, 3))
    return (
        tf.ensure_shape(layer.transform_images(images, drawn), images.shape),
        tf.ensure_shape(layer.transform_labels(labels, drawn), labels.shape),
    )
