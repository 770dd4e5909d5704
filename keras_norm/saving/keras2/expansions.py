"""Layers of Keras 2 that several layers of Keras 3 replace."""

import math

import keras


def is_needed(new):
    """Returns True for a layer that no single layer of Keras 3 computes."""
    axis = new["config"].get("axis")
    return new["class_name"] == "BatchNormalization" and isinstance(axis, list)


class Expansion:
    """Batch normalization over several axes, which are merged into one.

    The axes are moved to the end, merged by a reshape, normalized, split, and
    moved back.

    Args:
        new: Translated saved form of the layer.
    """

    def __init__(self, new):
        self._config = dict(new["config"])
        self._axes = self._config.pop("axis")
        self.norm = keras.layers.BatchNormalization(axis=-1, **self._config)

    @property
    def weights(self):
        return self.norm.weights

    @property
    def trainable_weights(self):
        return self.norm.trainable_weights

    @property
    def non_trainable_weights(self):
        return self.norm.non_trainable_weights

    def freeze(self):
        self.norm.trainable = False

    def __call__(self, inputs):
        for layer in self.make_layers(inputs.shape):
            inputs = layer(inputs)
        return inputs

    def make_layers(self, shape):
        """Returns the layers for inputs of a shape with the batch."""
        name, dtype = self.norm.name, self.norm.dtype_policy
        rank = len(shape)
        axes = sorted(axis % rank for axis in self._axes)
        others = [axis for axis in range(1, rank) if axis not in axes]
        order = others + axes
        sizes = [shape[axis] for axis in order]
        merged = math.prod(shape[axis] for axis in axes)
        inner = [shape[axis] for axis in others]
        back = [order.index(axis) + 1 for axis in range(1, rank)]
        return [
            keras.layers.Permute(order, name=f"{name}_permute", dtype=dtype),
            _reshape([*inner, merged], f"{name}_merge", dtype),
            self.norm,
            _reshape(sizes, f"{name}_split", dtype),
            keras.layers.Permute(back, name=f"{name}_back", dtype=dtype),
        ]


def _reshape(sizes, name, dtype):
    # Reshape can find out one unknown size.
    sizes = [-1 if size is None else size for size in sizes]
    return keras.layers.Reshape(sizes, name=name, dtype=dtype)
