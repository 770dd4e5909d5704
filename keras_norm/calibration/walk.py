"""Evaluates a model operation by operation, each on all batches.

Calibration changes a layer when all batches have reached it and before any
batch goes on, so that later layers see the changed outputs.
"""

import collections

import keras

from keras_norm.conversion import graph


class StagedWalk:
    """Evaluates the functional graph of a model in order of computation.

    The values of the graph are opaque: whatever `call` returns is passed to the
    calls that take it, and is dropped after the last of them.

    Args:
        call: Function from `(node, args, kwargs)` to the flat list of the
            node's outputs. `args` and `kwargs` hold values in place of symbolic
            tensors. It is not called for nested models, whose operations are
            walked as well.
        size: Function from a value to its size in bytes, or None.

    Attributes:
        peak: Largest number of bytes that were held at once.
    """

    def __init__(self, call, size=None):
        self.call = call
        self.size = size or (lambda value: 0)
        self.held = 0
        self.peak = 0

    def run(self, model, inputs):
        """Returns the flat list of a graph model's outputs.

        Args:
            model: Graph model.
            inputs: Flat list with a value for each input.
        """
        if isinstance(model, keras.Sequential):
            return self._run_sequential(model, inputs)
        symbolic = keras.tree.flatten(graph.inputs(model))
        nodes = graph.nodes(model)
        outputs = graph.flat_outputs(model)
        num_uses = collections.Counter(
            id(x) for node in nodes for x in graph.input_tensors(node)
        )
        num_uses.update(id(x) for x in outputs)
        values = {}
        for tensor, value in zip(symbolic, inputs, strict=True):
            values[id(tensor)] = value
            self._hold(value)
        for node in nodes:
            args, kwargs = graph.arguments(node, values)
            results = self._call(node, args, kwargs)
            for tensor, value in zip(
                graph.output_tensors(node), results, strict=True
            ):
                values[id(tensor)] = value
                self._hold(value)
            for tensor in graph.input_tensors(node):
                num_uses[id(tensor)] -= 1
            for tensor in (
                *graph.input_tensors(node),
                *graph.output_tensors(node),
            ):
                if not num_uses[id(tensor)] and id(tensor) in values:
                    self.held -= self.size(values.pop(id(tensor)))
        results = [values[id(x)] for x in outputs]
        self.held -= sum(self.size(value) for value in values.values())
        return results

    def _run_sequential(self, model, inputs):
        # Its nodes hold casts between the layers, which it does itself.
        for node in graph.nodes(model):
            results = self._call(node, tuple(inputs), {})
            sizes = [self.size(value) for value in (*inputs, *results)]
            self.peak = max(self.peak, self.held + sum(sizes))
            inputs = results
        return inputs

    def _call(self, node, args, kwargs):
        operation = graph.operation(node)
        if graph.is_graph_model(operation):
            return self.run(operation, keras.tree.flatten(args[0]))
        return self.call(node, args, kwargs)

    def _hold(self, value):
        self.held += self.size(value)
        self.peak = max(self.peak, self.held)
