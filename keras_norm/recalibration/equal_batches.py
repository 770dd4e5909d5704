"""Joins and splits batches, so that all have the same number of examples.

The rounding of convolutions and matrix products depends on the number of
examples in a batch, and the differences grow from layer to layer.
"""

from keras_norm.data.batch_inputs import batch_length
from keras_norm.data.batch_inputs import join
from keras_norm.data.batch_inputs import take
from keras_norm.data.batches import DEFAULT_BATCH_SIZE
from keras_norm.graphs import graph
from keras_norm.graphs.program import peak_bytes

# Limit of the activations that a batch needs at once, if batches are joined.
MAX_BYTES = 2**30


class EqualBatches:
    """The examples of other batches, 32 in each batch and the rest in the last.

    A fixed batch size of the model takes the place of 32. Batches stay as they
    are if 32 examples need too much memory. Examples of different shapes are
    not joined.

    Args:
        batches: The `Batches`.
        program: The `Program` that runs on them.
        steps: List of its steps that run.

    Attributes:
        num_batches: Number of batches, or None if it is not known.
        num_examples: Number of examples, or None if it is not known.
    """

    def __init__(self, batches, program, steps):
        self.num_batches = batches.num_batches
        self.num_examples = batches.num_examples
        self._batches = batches
        self._program = program
        self._steps = steps
        self._size = None

    def __iter__(self):
        waiting, length = [], 0
        for number, arrays in enumerate(self._batches):
            if number == 0 and self._size is None:
                self._choose_size(arrays)
            if self._size is None:
                yield arrays
                continue
            if waiting and _shapes(waiting[0]) != _shapes(arrays):
                yield join(waiting)
                waiting, length = [], 0
            waiting.append(arrays)
            length += batch_length(arrays)
            if length >= self._size:
                joined = join(waiting)
                stop = length - length % self._size
                for start in range(0, stop, self._size):
                    yield take(joined, slice(start, start + self._size))
                length -= stop
                waiting = [take(joined, slice(stop, None))] if length else []
        if waiting:
            yield join(waiting)

    def _choose_size(self, arrays):
        size = self._fixed_size()
        if size is None:
            size = DEFAULT_BATCH_SIZE
            needed = peak_bytes(
                self._program, take(arrays, slice(0, 1)), self._steps
            )
            if size * needed > MAX_BYTES:
                return
        self._size = size
        self.num_batches = None
        if self.num_examples is not None:
            self.num_batches = -(-self.num_examples // size)

    def _fixed_size(self):
        """Returns the batch size of the model's inputs, or None for any."""
        sizes = [x.shape[0] for x in graph.flat_inputs(self._batches.model)]
        return next((size for size in sizes if size is not None), None)


def _shapes(arrays):
    return [None if x is None else x.shape[1:] for x in arrays]
