"""Rebuilds a model from its graph or its config, with changed layers."""

import contextlib
import dataclasses

import keras
from keras import ops

from keras_norm import _keras_internals
from keras_norm import variables
from keras_norm.conversion import weights
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph


@dataclasses.dataclass(kw_only=True)
class Edits:
    """Changes to a model's layers and calls.

    Attributes:
        layers: Dict from the ids of layers to the layers that replace them.
        transfers: Dict from the same ids to objects with `values`, a dict from
            the names of weights to arrays.
        calls: Dict from the ids of nodes to the layers that are called in their
            place, on the first input.
        removed: Set of the ids of nodes that are left out: their output is
            their first input.
        before: Dict from the ids of nodes to layers that are called on their
            first input before them.
    """

    layers: dict = dataclasses.field(default_factory=dict)
    transfers: dict = dataclasses.field(default_factory=dict)
    calls: dict = dataclasses.field(default_factory=dict)
    removed: set = dataclasses.field(default_factory=set)
    before: dict = dataclasses.field(default_factory=dict)


def rebuild_model(model, edits=None):
    """Rebuilds a graph model with changes; both share nothing.

    Args:
        model: The graph model; it is not changed.
        edits: The `Edits`. Their layers become layers of the new model.
            None to copy the model.

    Returns:
        `(new model, operations)`: a dict from the ids of the old operations to
        `(old, new)`.
    """
    walk = _GraphWalk(model, edits or Edits())
    new = walk.model(model)
    walk.fill()
    walk.restore_trainable(model, new)
    return new, walk.rebuilt


def rebuild_from_config(layer, edit_config=None, dtype_policy=None):
    """Rebuilds a layer or a model from its config, newly initialized.

    Copy the weights with `weights.copy_weights(layer, new)`.

    Args:
        layer: Keras layer or model; it is not changed.
        edit_config: Function from the config to a changed config, or None. The
            config of a model contains the configs of its layers.
        dtype_policy: Dtype policy of models, and of layers that composite
            layers create; None for the layer's own.

    Raises:
        ConversionError: if the config does not build the layer.
    """
    try:
        with _default_policy(dtype_policy or _policy_of(layer)):
            config = layer.get_config()
            if edit_config is not None:
                config = edit_config(config)
            return type(layer).from_config(config)
    except Exception as error:
        raise ConversionError(
            f"{layer.name!r}, a {type(layer).__name__}, cannot be rebuilt from "
            f"its config: {one_line(error)}"
        ) from error


class _GraphWalk:
    """Rebuilds graph models; shared layers and models are rebuilt once."""

    def __init__(self, root, edits):
        self.root = root
        self.edits = edits
        # The old objects are kept as well, so that ids stay unique.
        self.rebuilt = {}
        self.variables = {}

    def model(self, model):
        """Rebuilds a graph model, nested or not."""
        with _default_policy(_policy_of(model)):
            return self._model(model)

    def _model(self, model):
        tensors = {}
        new_inputs = keras.tree.map_structure(
            lambda x: self._input(x, tensors), graph.inputs(model)
        )
        if isinstance(model, keras.Sequential):
            # It calls its layers itself; called twice, they lack an `output`.
            cls = type(model) if graph.keeps_class(model) else keras.Sequential
            layers = keras.tree.flatten(new_inputs)
            for node in graph.nodes(model):
                layers += self._operations(node)
            return cls(layers, name=model.name)
        for node in graph.nodes(model):
            self._call(node, tensors)
        cls = type(model) if graph.keeps_class(model) else keras.Model
        new_outputs = keras.tree.map_structure(
            lambda x: tensors[id(x)], graph.outputs(model)
        )
        return cls(inputs=new_inputs, outputs=new_outputs, name=model.name)

    def fill(self):
        """Assigns the weights of every new layer."""
        for old, new in self.rebuilt.values():
            transfer = self.edits.transfers.get(id(old))
            if transfer is not None:
                weights.assign_weights(new, transfer.values)
            elif isinstance(old, keras.layers.Layer) and not (
                graph.is_graph_model(old)
            ):
                weights.copy_weights(old, new)

    def restore_trainable(self, model, new):
        """Sets `trainable` of models and of layers inside layers.

        Outer layers come first, because each setting changes inner layers.
        """
        pairs = [
            pair
            for pair in [(model, new), *self.rebuilt.values()]
            if isinstance(pair[0], keras.layers.Layer)
        ]
        # A nested model is rebuilt before the model that contains it.
        pairs.sort(key=lambda pair: not graph.is_graph_model(pair[0]))
        for old, rebuilt in pairs:
            if graph.is_graph_model(old):
                _set_trainable(old, rebuilt)
            else:
                _match_trainable(old, rebuilt)

    def _input(self, tensor, tensors):
        node, _ = graph.producing_node(tensor)
        old = graph.operation(node)
        # Before Keras 3.10 it is missing from the config.
        optional = {"optional": True} if old.optional else {}
        new = type(old).from_config({**old.get_config(), **optional})
        tensors[id(tensor)] = new.output
        return new.output

    def _call(self, node, tensors):
        """Calls the new operation in place of the old one."""
        if id(node) in self.edits.removed:
            (output,) = graph.output_tensors(node)
            tensors[id(output)] = tensors[id(graph.input_tensors(node)[0])]
            return
        old, new = graph.operation(node), self._operation(node)
        given = tensors
        if id(node) in self.edits.before:
            first = id(graph.input_tensors(node)[0])
            prepared = self.edits.before[id(node)](tensors[first])
            given = {**tensors, first: prepared}
        args, kwargs = keras.tree.map_structure(
            self._copy_argument, graph.arguments(node, given)
        )
        if id(node) in self.edits.calls:
            results = new(tensors[id(graph.input_tensors(node)[0])])
        elif id(old) in self.edits.layers:
            args, kwargs = graph.accepted_arguments(new, old, args, kwargs)
            results = new(*args, **kwargs)
        else:
            results = new(*args, **kwargs)
        flat = keras.tree.flatten(results)
        for tensor, result in zip(
            graph.output_tensors(node), flat, strict=True
        ):
            tensors[id(tensor)] = result

    def _copy_argument(self, value):
        """Copies a call's argument, so that the models share nothing."""
        if isinstance(value, keras.Variable):
            if id(value) not in self.variables:
                self.variables[id(value)] = value, self._new_variable(value)
            return self.variables[id(value)][1]
        if ops.is_tensor(value):
            return ops.copy(ops.stop_gradient(value))
        return value

    def _new_variable(self, variable):
        """Returns the new variable for an old one that is a call's argument.

        A tied weight is a variable of the rebuilt layer. A variable without a
        layer is copied.
        """
        for old, new in self.rebuilt.values():
            match = weights.matching_variable(variable, old, new)
            if match is not None:
                return match
        if any(variable is each for each in self.root.variables):
            raise ConversionError(
                "An operation takes a weight of a layer that is called after "
                "it, which cannot be rebuilt: call the layer first. "
                f"Received: variable={variable.path!r}"
            )
        return keras.Variable(
            variables.read_copy(variable),
            dtype=variable.dtype,
            trainable=variable.trainable,
            name=variable.name,
        )

    def _operations(self, node):
        """Returns the layers in place of a layer of a Sequential model."""
        if id(node) in self.edits.removed:
            return []
        before = self.edits.before.get(id(node))
        return [*([] if before is None else [before]), self._operation(node)]

    def _operation(self, node):
        """Returns the new operation that a node of the old model calls."""
        if id(node) in self.edits.calls:
            return self.edits.calls[id(node)]
        old = graph.operation(node)
        if id(old) not in self.rebuilt:
            self.rebuilt[id(old)] = old, self._copy(old)
        return self.rebuilt[id(old)][1]

    def _copy(self, old):
        if id(old) in self.edits.layers:
            return self.edits.layers[id(old)]
        if graph.is_graph_model(old):
            return self.model(old)
        if not isinstance(old, keras.layers.Layer):
            return graph.copy_operation(old)
        return _copy_layer(old)


def _policy_of(layer):
    return getattr(layer, "dtype_policy", keras.config.dtype_policy())


@contextlib.contextmanager
def _default_policy(policy):
    """Sets Keras' default dtype policy in a scope.

    Models take it, and so do layers that composite layers create.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _copy_layer(layer):
    if type(layer) is keras.layers.Lambda:
        return graph.copy_lambda(layer)
    return rebuild_from_config(layer)


def _match_trainable(old, new):
    """Sets `trainable` of a layer and its inner layers, outer layers first."""
    sources = _keras_internals.all_layers(old)
    targets = _keras_internals.all_layers(new)
    if len(sources) != len(targets):
        sources, targets = sources[:1], targets[:1]
    for source, target in zip(sources, targets, strict=True):
        _set_trainable(source, target)


def _set_trainable(old, new):
    if old.trainable != new.trainable:
        new.trainable = old.trainable
