"""Links between the calls of a model, across the borders of nested models."""

import collections
import dataclasses
import inspect

import keras

from keras_norm.graphs import graph


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Attributes:
        node: The node of the graph.
        operation: The layer or bare operation.
        model: The model that contains it.
        path: Names of the nested models that contain it, and its name.
        is_output: True if its output is an output of `model`.
    """

    node: object
    operation: object
    model: object
    path: str
    is_output: bool

    @property
    def input_shapes(self):
        """Shapes of the inputs, without the batch."""
        return [tuple(x.shape[1:]) for x in graph.input_tensors(self.node)]

    @property
    def output_shape(self):
        """Shape of the first output, without the batch."""
        return tuple(graph.output_tensors(self.node)[0].shape[1:])

    def argument(self, name):
        """Returns the value of an argument, or None."""
        args, kwargs = graph.arguments(self.node)
        if name in kwargs:
            return kwargs[name]
        if not args or not isinstance(self.operation, keras.layers.Layer):
            return None
        parameters = inspect.signature(self.operation.call).parameters
        return dict(zip(parameters, args, strict=False)).get(name)

    def describe(self):
        """Returns the operation's path and class, for a reason."""
        return f"{self.path!r} ({type(self.operation).__name__})"


class Links:
    """Producers and consumers of every value of a graph model.

    A value is a symbolic tensor, or several that are the same: the argument of
    a nested model and the input inside it, an output inside it and outside. A
    nested model that is called several times is a border: no value crosses it.

    Values are named by integers.
    """

    def __init__(self, model):
        self._same = {}
        # Symbolic tensors must live as long as their ids are used.
        self._tensors = {}
        self.calls = []
        self._calls_of = collections.defaultdict(list)
        self._collect(model, "")
        self._join_nested()
        self._outputs = {
            self._value(tensor) for tensor in graph.flat_outputs(model)
        }
        self._producers, self._consumers = {}, collections.defaultdict(list)
        for call in self.calls:
            if id(call.operation) in self._joined:
                continue
            for value in self.outputs(call):
                self._producers[value] = call
            for value in dict.fromkeys(self.inputs(call)):
                self._consumers[value].append(call)
        self._close_repeated()

    def _collect(self, model, prefix):
        outputs = {id(tensor) for tensor in graph.flat_outputs(model)}
        nodes = graph.all_nodes(model)
        if isinstance(model, keras.Sequential):
            # Keras may record the calls of its layers again.
            kept = {id(node) for node in graph.nodes(model)}
            layers = {id(layer) for layer in model.layers}
            nodes = [
                node
                for node in nodes
                if id(node) in kept or id(graph.operation(node)) not in layers
            ]
        for node in nodes:
            operation = graph.operation(node)
            call = Call(
                node,
                operation,
                model,
                prefix + operation.name,
                any(id(x) in outputs for x in graph.output_tensors(node)),
            )
            is_new = id(operation) not in self._calls_of
            self.calls.append(call)
            self._calls_of[id(operation)].append(call)
            if graph.is_graph_model(operation) and is_new:
                self._collect(operation, f"{call.path}/")

    def _join_nested(self):
        """Joins the values outside and inside of nested models."""
        self._joined, self._repeated = set(), []
        for calls in self._calls_of.values():
            model = calls[0].operation
            if not graph.is_graph_model(model):
                continue
            inner = keras.tree.flatten(graph.inputs(model))
            inner += graph.output_tensors(calls[0].node)
            outer = list(graph.input_tensors(calls[0].node))
            outer += graph.flat_outputs(model)
            if len(calls) > 1 or len(inner) != len(outer):
                self._repeated.append(model)
                continue
            self._joined.add(id(model))
            for one, other in zip(inner, outer, strict=True):
                one, other = self._value(one), self._value(other)
                if one != other:
                    self._same[one] = other

    def _close_repeated(self):
        for model in self._repeated:
            for tensor in graph.flat_outputs(model):
                self._outputs.add(self._value(tensor))

    def _value(self, tensor):
        self._tensors[id(tensor)] = tensor
        return self._find(id(tensor))

    def _find(self, value):
        while value in self._same:
            value = self._same[value]
        return value

    def inputs(self, call):
        """Returns the values that a call takes, with repetitions."""
        return [self._value(x) for x in graph.input_tensors(call.node)]

    def outputs(self, call):
        """Returns the values that a call produces."""
        return [self._value(x) for x in graph.output_tensors(call.node)]

    def producer(self, value):
        """Returns the call that produces a value; None for an input."""
        return self._producers.get(self._find(value))

    def consumers(self, value):
        """Returns the calls that take a value."""
        return self._consumers[self._find(value)]

    def is_output(self, value):
        """Returns True if a value leaves the model, or a repeated model."""
        return self._find(value) in self._outputs

    def calls_of(self, operation):
        """Returns all calls of an operation."""
        return self._calls_of[id(operation)]

    def is_training(self, call):
        """Returns True if a call runs in training mode at inference too."""
        training = call.argument("training")
        if training is not None:
            return training is not False
        return any(
            map(self.is_training, self._calls_of.get(id(call.model), []))
        )

    def bypass(self, call):
        """Removes a call: its output becomes the value of its first input."""
        (output,) = self.outputs(call)
        value = self.inputs(call)[0]
        users = [c for c in self._consumers[value] if c is not call]
        self._consumers[value] = users + self._consumers.pop(output, [])
        if output in self._outputs:
            self._outputs.add(value)
        self._producers.pop(output)
        self._same[output] = value
