"""A model's graph as one list of steps, with nested models inlined."""

import contextlib
import dataclasses
import inspect
import math
import re

import keras
import numpy as np
from keras import ops

from keras_norm import _keras_internals
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph


@dataclasses.dataclass(eq=False)
class Step:
    """A call of one operation, or the input of a nested model.

    Attributes:
        reads: Tuple of the keys of the values that it reads.
        writes: Tuple of the keys of the values that it computes.
        operation: The operation, or None for an input.
        node: The node of the call, or the symbolic input.
        keys: Dict from the ids of the node's symbolic inputs to keys.
    """

    reads: tuple
    writes: tuple
    operation: object
    node: object
    keys: dict

    def run(self, values, call=None):
        """Adds the results to a dict from keys to tensors, at inference.

        Args:
            values: Dict from keys to tensors.
            call: `f(args, kwargs)` calls another operation in place of the
                step's, or None.
        """
        if self.operation is None:
            results = [_enter(self.node, *(values[key] for key in self.reads))]
        else:
            args, kwargs = self.arguments(values)
            if _takes_training(self.operation):
                kwargs["training"] = False
            with _one_line_error(self.operation, args):
                if call is None:
                    results = self.operation(*args, **kwargs)
                else:
                    results = call(args, kwargs)
            results = keras.tree.flatten(results)
        values.update(zip(self.writes, results, strict=True))

    def arguments(self, values):
        """Returns `(args, kwargs)` of the call."""
        return graph.arguments(
            self.node, {name: values[key] for name, key in self.keys.items()}
        )

    def inputs_and_mask(self, values):
        """Returns the tensor that a normalization layer gets, and its mask."""
        args, kwargs = self.arguments(values)
        signature = inspect.signature(self.operation.call)
        given = signature.bind(*args, **kwargs).arguments
        inputs, mask = given["inputs"], given.get("mask")
        if mask is None:
            mask = _keras_internals.get_mask(inputs)
        return inputs, mask


class Program:
    """The steps of a graph model, in an order in which they can run.

    A model that is called several times has the steps of every call.

    Attributes:
        inputs: List of the keys of the model's inputs.
        steps: List of `Step`.
        constants: Dict from keys to values that are not computed.
    """

    def __init__(self, model):
        self.steps = []
        self.constants = {}
        self._num_keys = 0
        self.inputs = [self._new_key() for _ in graph.flat_inputs(model)]
        self._inline(model, self.inputs, [None] * len(self.inputs))

    def steps_between(self, available, wanted):
        """Returns the steps that compute keys from available keys, in order."""
        missing, found = set(wanted) - set(available), []
        for step in reversed(self.steps):
            if missing.intersection(step.writes):
                found.append(step)
                missing.difference_update(step.writes)
                missing.update(set(step.reads) - set(available))
        return found[::-1]

    def _new_key(self):
        self._num_keys += 1
        return self._num_keys - 1

    def _constant(self, value):
        key = self._new_key()
        self.constants[key] = value
        return key

    def _inline(self, model, keys, masks):
        """Adds the steps of a graph model; returns the keys of its outputs."""
        names = {}
        for tensor, key, mask in zip(
            graph.flat_inputs(model), keys, masks, strict=True
        ):
            reads = (key,) if mask is None else (key, mask)
            names[id(tensor)] = self._add(reads, 1, None, tensor, {})[0]
        for node in graph.all_nodes(model):
            operation = graph.operation(node)
            tensors = graph.output_tensors(node)
            if graph.is_graph_model(operation):
                results = self._inline(operation, *self._given(node, names))
            else:
                read = {id(x): names[id(x)] for x in graph.input_tensors(node)}
                results = self._add(
                    tuple(read.values()), len(tensors), operation, node, read
                )
            names.update(zip(map(id, tensors), results, strict=True))
        return [names[id(x)] for x in graph.flat_outputs(model)]

    def _add(self, reads, num_results, operation, node, keys):
        writes = tuple(self._new_key() for _ in range(num_results))
        self.steps.append(Step(reads, writes, operation, node, keys))
        return writes

    def _given(self, node, names):
        """Returns the keys of a nested model's inputs, and of their masks."""
        operation = graph.operation(node)
        args, kwargs = graph.arguments(node)
        inputs = args[0] if args else kwargs["inputs"]
        symbolic = graph.inputs(operation)
        if isinstance(inputs, dict) and not isinstance(symbolic, dict):
            inputs = [inputs[x.name] for x in keras.tree.flatten(symbolic)]
        inputs = keras.tree.flatten(inputs)
        masks = keras.tree.flatten(kwargs.get("mask"))
        if len(masks) != len(inputs):
            masks = [None] * len(inputs)

        def key(value):
            return names[id(value)] if id(value) in names else None

        keys = [self._constant(x) if key(x) is None else key(x) for x in inputs]
        return keys, [key(mask) for mask in masks]


def last_uses(steps, wanted):
    """Returns a dict from steps to the keys that nothing uses after them.

    Args:
        steps: List of `Step`, in order.
        wanted: Set of keys that are used after all steps.
    """
    last = {key: step for step in steps for key in (*step.reads, *step.writes)}
    uses = {}
    for key, step in last.items():
        if key not in wanted:
            uses.setdefault(step, []).append(key)
    return uses


@contextlib.contextmanager
def inference():
    """Discards all changes of state and computes no gradients."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras.StatelessScope())
        if keras.backend.backend() == "torch":
            import torch

            stack.enter_context(torch.no_grad())
        yield


def peak_bytes(program, arrays, steps=None):
    """Returns the most bytes that the values of a batch take at once.

    Args:
        program: The `Program`.
        arrays: List of an array for each input of the model.
        steps: List of the steps that run, None for all.
    """
    steps = program.steps if steps is None else steps
    values = dict(zip(program.inputs, arrays, strict=True))
    values.update(program.constants)
    unused = last_uses(steps, set())
    peak = 0
    with inference():
        for step in steps:
            step.run(values)
            peak = max(peak, sum(map(num_bytes, values.values())))
            for key in unused.get(step, ()):
                del values[key]
    return peak


def num_bytes(value):
    """Returns the size of a tensor in bytes; 0 for None."""
    if value is None:
        return 0
    if isinstance(value, np.ndarray):
        return value.nbytes
    dtype = keras.backend.standardize_dtype(value.dtype)
    # NumPy has no bfloat16, and strings of TensorFlow have no size.
    width = {"bfloat16": 2, "string": 16}.get(dtype)
    width = np.dtype(dtype).itemsize if width is None else width
    return math.prod(value.shape) * width


@contextlib.contextmanager
def _one_line_error(operation, args):
    """Names the operation in any error that it raises."""
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        shapes = [getattr(x, "shape", None) for x in keras.tree.flatten(args)]
        received = ", ".join(str(tuple(s)) for s in shapes if s is not None)
        # Keras wraps an error in the name of the layer and its arguments.
        text = re.sub(
            r"\x1b\[\d*m|Exception encountered when calling \S*[.]",
            "",
            str(error),
        ).split("Arguments received")
        raise ConversionError(
            f"{operation.name!r}, a {type(operation).__name__}, fails on a "
            f"batch of the data: {one_line(text[0])[:300]} "
            f"Received: shapes {received}"
        ) from error


def _takes_training(operation):
    call = getattr(operation, "call", None)
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and "training" in inspect.signature(call).parameters


def _enter(symbolic, value, mask=None):
    """Converts a value as a Functional model converts its inputs."""
    if value is None:
        return None
    if mask is None:
        mask = _keras_internals.get_mask(value)
    tensor = ops.convert_to_tensor(value, dtype=symbolic.dtype)
    rank, wanted = len(tensor.shape), len(symbolic.shape)
    if rank == wanted + 1:
        tensor = ops.squeeze(tensor, axis=-1)
    elif rank == wanted - 1:
        tensor = ops.expand_dims(tensor, axis=-1)
    if mask is not None:
        _keras_internals.set_mask(tensor, mask)
    return tensor
