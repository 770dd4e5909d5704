"""Values that a pass starts from: the data, or activations that were kept."""

from keras_norm.graphs.program import num_bytes

# Limit of the activations that are kept between two passes.
MAX_BYTES = 2**30


class DataSource:
    """The batches of the data, as a source of values.

    Attributes:
        keys: Set of the keys of the values.
        is_complete: True while every batch is available.
    """

    is_complete = True

    def __init__(self, keys, batches):
        self.keys = set(keys)
        self._order = keys
        self._batches = batches

    def __iter__(self):
        """Yields `(number of examples, dict from keys to values)`."""
        for arrays in self._batches:
            size = next(len(array) for array in arrays if array is not None)
            yield size, dict(zip(self._order, arrays, strict=True))

    def release(self, number):
        """Does nothing; see `ActivationCache.release`."""


class ActivationCache:
    """Activations of every batch, while all of them fit `MAX_BYTES`.

    Attributes:
        keys: Set of the keys of the activations.
        is_complete: True while every batch is available.
    """

    def __init__(self, keys):
        self.keys = set(keys)
        self.is_complete = bool(keys)
        self._batches = []
        self._num_bytes = 0
        self._num_examples = 0

    def __iter__(self):
        for size, values in self._batches:
            yield size, dict(values)

    def add(self, size, values, num_examples):
        """Keeps the activations of the next batch, if all are likely to fit.

        Args:
            size: Number of examples in the batch.
            values: Dict from keys to tensors.
            num_examples: Number of examples in the data, or None.

        Returns:
            True if they were kept.
        """
        if not self.is_complete:
            return False
        kept = {key: values[key] for key in self.keys}
        self._batches.append((size, kept))
        self._num_bytes += sum(map(num_bytes, kept.values()))
        self._num_examples += size
        total = max(num_examples or 0, self._num_examples)
        if self._num_bytes * total > MAX_BYTES * self._num_examples:
            self._batches, self.is_complete = [], False
        return self.is_complete

    def release(self, number):
        """Frees the activations of a batch that has been used."""
        self._batches[number] = None
        self.is_complete = False
