"""Distance between the outputs of two models, without labels."""

import keras
import numpy as np
from keras import ops

from keras_norm.data.batch_inputs import batch_length
from keras_norm.data.batch_inputs import take
from keras_norm.graphs import graph
from keras_norm.graphs.program import inference

# Probabilities are kept this far from 0 and 1 before their logarithm.
_CLIP = 1e-7
_BATCH_SIZE = 64


class OutputLoss:
    """Mean squared difference of the outputs, relative to their variance.

    The softmax or sigmoid of a last layer is undone, so that logits are
    compared. Softmax leaves a constant undetermined: the mean over the classes
    is subtracted.

    Args:
        model: The model whose outputs are the targets.
        arrays: List of arrays, one for each input, or None for an input that is
            not passed.

    Attributes:
        targets: List of float32 arrays: the model's outputs, undone.
    """

    def __init__(self, model, arrays):
        self._undo = [_undo_function(x) for x in graph.flat_outputs(model)]
        self.targets = self.compute(model, arrays)
        self._scales = [_variance(target) for target in self.targets]

    def compute(self, model, arrays):
        """Returns a model's outputs for arrays, as a list of arrays."""
        return run_model(model, arrays, self.undo)

    def undo(self, outputs):
        """Returns outputs as a list of float32 tensors, before activations."""
        return [
            undo(ops.cast(x, "float32"))
            for undo, x in zip(
                self._undo, keras.tree.flatten(outputs), strict=True
            )
        ]

    def __call__(self, targets, outputs):
        """Returns the loss of lists of tensors, a scalar."""
        return sum(
            ops.mean(ops.square(y - t)) / scale
            for t, y, scale in zip(targets, outputs, self._scales, strict=True)
        )


def run_model(model, arrays, change=keras.tree.flatten):
    """Returns the outputs of a model at inference, a list of float32 arrays.

    Args:
        model: The model.
        arrays: List of arrays, one for each input, or None for an input that is
            not passed.
        change: Function of the outputs of a batch that returns a list.
    """
    results = []
    for start in range(0, batch_length(arrays), _BATCH_SIZE):
        batch = take(arrays, slice(start, start + _BATCH_SIZE))
        inputs = pack_inputs(model, batch)
        with inference():
            outputs = change(model(inputs, training=False))
        results.append(
            [ops.convert_to_numpy(ops.cast(x, "float32")) for x in outputs]
        )
    return [np.concatenate(each) for each in zip(*results, strict=True)]


def pack_inputs(model, arrays):
    """Returns arrays in the structure of a model's inputs."""
    return keras.tree.pack_sequence_as(graph.inputs(model), list(arrays))


def _variance(target):
    centered = target.astype("float64") - target.mean(axis=0, dtype="float64")
    return float(np.mean(centered**2) or np.mean(target**2) or 1.0)


def _undo_function(tensor):
    name = _last_activation(tensor)
    if name == "softmax":
        return _undo_softmax
    return _undo_sigmoid if name == "sigmoid" else lambda x: x


def _last_activation(tensor):
    """Returns the name of the activation that computes an output, or None."""
    node, position = graph.producing_node(tensor)
    operation = None if node is None else graph.operation(node)
    if operation is None:
        return None
    if graph.is_graph_model(operation):
        return _last_activation(graph.flat_outputs(operation)[position])
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", None)
    if name is None or name == "linear":
        # Softmax is a layer and an operation.
        name = type(operation).__name__.lower()
    axis = getattr(operation, "axis", -1)
    return None if name == "softmax" and axis != -1 else name


def _undo_softmax(x):
    logits = ops.log(ops.clip(x, _CLIP, 1.0))
    return logits - ops.mean(logits, axis=-1, keepdims=True)


def _undo_sigmoid(x):
    x = ops.clip(x, _CLIP, 1.0 - _CLIP)
    return ops.log(x) - ops.log1p(-x)
