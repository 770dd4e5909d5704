"""Layers inside `TimeDistributed`, which calls them for each position."""

import dataclasses

from keras import layers

from keras_norm.folding.links import Call


@dataclasses.dataclass(frozen=True, eq=False)
class InnerCall:
    """The call of the layer inside a `TimeDistributed`, for one position.

    Attributes:
        outer: The `Call` of the `TimeDistributed`.
    """

    outer: Call

    @property
    def operation(self):
        """The layer inside."""
        return self.outer.operation.layer

    @property
    def path(self):
        """Path of the `TimeDistributed`."""
        return self.outer.path

    @property
    def input_shapes(self):
        """Shapes of the inputs, without the batch and the position."""
        return [shape[1:] for shape in self.outer.input_shapes]

    @property
    def output_shape(self):
        """Shape of the output, without the batch and the position."""
        return self.outer.output_shape[1:]

    def argument(self, name):
        """Returns the value of an argument, or None."""
        return self.outer.argument(name)

    def describe(self):
        """Returns the path and the classes, for a reason."""
        return self.outer.describe()


def is_time_distributed(operation):
    """Returns True for a `TimeDistributed`, not for a subclass."""
    return type(operation) is layers.TimeDistributed


def inner_layer(operation):
    """Returns the layer inside a `TimeDistributed`, or the operation."""
    return operation.layer if is_time_distributed(operation) else operation
