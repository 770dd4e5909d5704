"""Reads data of any kind as batches of a model's inputs."""

import keras
import numpy as np

from keras_norm.data import batch_inputs
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph

DEFAULT_BATCH_SIZE = 32
# Limit of the batches of an iterator, which is read only once.
MAX_ITERATOR_BYTES = 2**32
# Limit of the examples of data of unknown length, which may be endless.
MAX_EXAMPLES = 100_000


def make_batches(model, data, batch_size=None):
    """Returns data as `Batches` that can be read any number of times.

    Args:
        model: The graph model.
        data, batch_size: As in `keras_norm.recalibrate`.

    Raises:
        ConversionError: for data that has no batches, never ends, or does not
            fit the model.
    """
    if data is None or isinstance(data, str | bytes):
        raise ConversionError(
            "`data` must be arrays or batches of arrays; `keras-norm "
            f"recalibrate` reads files and folders. Received: data={data!r}"
        )
    if batch_size is not None and not (
        isinstance(batch_size, int | np.integer)
        and not isinstance(batch_size, bool)
        and batch_size > 0
    ):
        raise ConversionError(
            "`batch_size` must be a positive integer or None. "
            f"Received: batch_size={batch_size!r}"
        )
    arrays = batch_inputs.find_arrays(model, data)
    if arrays is not None:
        return ArrayBatches(model, arrays, batch_size or DEFAULT_BATCH_SIZE)
    if batch_size is not None:
        raise ConversionError(
            "`batch_size` is for arrays; this data has its own batches. "
            f"Received: data of type {type(data).__name__}, "
            f"batch_size={batch_size}"
        )
    return _batches_of_iterable(model, data)


class Batches:
    """Batches of a model's inputs.

    Iterating yields a list of arrays, one for each input, in the order of
    `model.inputs`; an optional input may be None.

    Attributes:
        num_batches: Number of batches, or None if it is not known.
        num_examples: Number of examples, or None if it is not known.
    """

    num_batches = None
    num_examples = None

    def __init__(self, model, source, num_batches=None):
        self.model = model
        self.num_batches = num_batches
        self._source = source

    def __iter__(self):
        number, num_examples = None, 0
        for number, element in enumerate(self._source()):
            arrays = batch_inputs.read_element(self.model, element, number)
            num_examples += batch_inputs.batch_length(arrays)
            if self.num_batches is None and num_examples > MAX_EXAMPLES:
                raise ConversionError(
                    "`data` of unknown length has more than "
                    f"{MAX_EXAMPLES:,} examples. Limit it if it is endless, "
                    "for example with `.take(number)` of a tf.data.Dataset; "
                    "tell its length if not, with `len` or "
                    "tf.data.experimental.assert_cardinality(number). "
                    f"Received: {number + 1:,} batches so far"
                )
            yield arrays
        if number is None:
            raise ConversionError("`data` has no batches.")


class ArrayBatches(Batches):
    """Batches of arrays, in order."""

    def __init__(self, model, arrays, batch_size):
        arrays = batch_inputs.check_batch(model, arrays, None)
        self._arrays = arrays
        self._batch_size = int(batch_size)
        self.num_examples = batch_inputs.batch_length(arrays)
        super().__init__(model, None, -(-self.num_examples // self._batch_size))

    def __iter__(self):
        for start in range(0, self.num_examples, self._batch_size):
            batch = slice(start, start + self._batch_size)
            yield batch_inputs.take(self._arrays, batch)


def _batches_of_iterable(model, data):
    if isinstance(data, keras.utils.PyDataset):
        num_batches = data.num_batches
        _require_end(num_batches is not None, data)
        return Batches(
            model, lambda: (data[i] for i in range(num_batches)), num_batches
        )
    if hasattr(data, "element_spec") and hasattr(data, "cardinality"):
        number = int(data.cardinality())
        # TensorFlow counts unknown as -2 and infinite as -1.
        _require_end(number != -1, data)
        return Batches(model, lambda: data, number if number >= 0 else None)
    try:
        iterator = iter(data)
    except TypeError as error:
        names = ", ".join(repr(x.name) for x in graph.flat_inputs(model))
        raise ConversionError(
            "`data` must be arrays, a tf.data.Dataset, a PyDataset, a torch "
            f"DataLoader or an iterable of batches, for the inputs {names} "
            f"({one_line(error)}). Received: data of type "
            f"{type(data).__name__}"
        ) from error
    if iterator is data:
        batches = _read_once(model, iterator)
        return Batches(model, lambda: batches, len(batches))
    try:
        num_batches = len(data)
    except (TypeError, AttributeError, NotImplementedError):
        num_batches = None
    return Batches(model, lambda: data, num_batches)


def _require_end(has_end, data):
    if not has_end:
        raise ConversionError(
            "`data` never ends: limit it, for example with `.take(number)` of "
            f"a tf.data.Dataset. Received: data of type {type(data).__name__}"
        )


def _read_once(model, iterator):
    """Returns the batches of an iterator, which cannot be read again."""
    batches, num_bytes = [], 0
    for number, element in enumerate(iterator):
        inputs = batch_inputs.read_element(model, element, number)
        # As an element with one leaf for each input.
        batches.append(batch_inputs.Inputs(inputs))
        num_bytes += sum(x.nbytes for x in inputs if x is not None)
        if num_bytes > MAX_ITERATOR_BYTES:
            raise ConversionError(
                "An iterator is read once and kept in memory, at most "
                f"{MAX_ITERATOR_BYTES / 2**30:g} GiB of it. Pass data that can "
                "be read again, such as a tf.data.Dataset, or limit it with "
                f"itertools.islice. Received: data of type "
                f"{type(iterator).__name__}, {number + 1} batches so far"
            )
    return batches
