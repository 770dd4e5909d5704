"""Keras' random layers as functions of a seed."""

import keras
import tensorflow as tf


class Seeds(keras.random.SeedGenerator):
    """Seeds that follow from one seed alone.

    Keras' own generator counts in a variable how often it was asked, in the
    order in which threads come by. This one counts while a graph is traced, so
    that the n-th draw of the graph is a function of the seed that goes in.
    """

    def __init__(self):
        super().__init__(seed=0)
        self._seed = None
        self._num_drawn = 0

    def start(self, seed):
        """Draws from here on follow from `seed`, a tensor of two integers."""
        self._seed = seed
        self._num_drawn = 0

    def next(self, ordered=True):
        self._num_drawn += 1
        return tf.random.fold_in(self._seed, self._num_drawn)


def bind(layer, seeds):
    """The layer, which draws from `seeds` from now on."""
    layer.generator = seeds
    return layer
