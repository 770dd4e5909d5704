"""The walk: a model's graph once more, with other layers in some places."""

import contextlib
import inspect

import keras
from keras import ops

from keras_norm import values
from keras_norm.conversion import graph
from keras_norm.conversion import weights
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line


def rebuild_model(model, plan):
    """A new model of the same graph, which shares nothing with the old one.

    Args:
        model: The graph model; it stays as it is.
        plan: A `Plan` for it. Its layers become those of the new model.
    """
    walk = _Walk(model, plan)
    new = walk.model(model)
    walk.fill()
    walk.restore_trainable(model, new)
    return new


class _Walk:
    """Rebuilds models; what was met before is the same again."""

    def __init__(self, root, plan):
        self.root = root
        self.plan = plan
        # What is old is kept beside the new, so that ids stay unique.
        self.made = {}
        self.twins = {}

    def model(self, model):
        """The new model of a graph model, nested or not."""
        with _policy_of(model):
            return self._model(model)

    def _model(self, model):
        tensors = {}
        new_inputs = keras.tree.map_structure(
            lambda x: self._input(x, tensors), graph.inputs(model)
        )
        if isinstance(model, keras.Sequential):
            # It calls its layers itself; twice, they would have no `output`.
            cls = type(model) if graph.keeps_class(model) else keras.Sequential
            parts = keras.tree.flatten(new_inputs)
            parts += [self._operation(node) for node in graph.nodes(model)]
            return cls(parts, name=model.name)
        for node in graph.nodes(model):
            self._call(node, tensors)
        cls = type(model) if graph.keeps_class(model) else keras.Model
        new_outputs = keras.tree.map_structure(
            lambda x: tensors[id(x)], graph.outputs(model)
        )
        return cls(inputs=new_inputs, outputs=new_outputs, name=model.name)

    def fill(self):
        """Gives every new layer its weights."""
        for old, new in self.made.values():
            transfer = self.plan.transfers.get(id(old))
            if transfer is not None:
                weights.assign_weights(new, transfer.values)
            elif isinstance(old, keras.layers.Layer) and not (
                graph.is_graph_model(old)
            ):
                weights.copy_weights(old, new)

    def restore_trainable(self, model, new):
        """Sets `trainable` of models and of layers inside layers.

        Outer ones first, as each setting reaches all that is inside.
        """
        pairs = [
            pair
            for pair in [(model, new), *self.made.values()]
            if isinstance(pair[0], keras.layers.Layer)
        ]
        # A nested model is met before what it lies in is complete.
        pairs.sort(key=lambda pair: not graph.is_graph_model(pair[0]))
        for old, ours in pairs:
            if graph.is_graph_model(old):
                _set_trainable(old, ours)
            else:
                _match_trainable(old, ours)

    def _input(self, tensor, tensors):
        node, _ = graph.producing_node(tensor)
        old = graph.operation(node)
        # Before Keras 3.10 the config says nothing of it.
        optional = {"optional": True} if old.optional else {}
        new = type(old).from_config({**old.get_config(), **optional})
        tensors[id(tensor)] = new.output
        return new.output

    def _call(self, node, tensors):
        """Calls the new operation where the old one was called."""
        old, new = graph.operation(node), self._operation(node)
        args, kwargs = keras.tree.map_structure(
            self._own, graph.arguments(node, tensors)
        )
        if id(node) in self.plan.thresholds:
            results = new(tensors[id(graph.input_tensors(node)[0])])
        elif id(old) in self.plan.layers:
            results = _call_with(new, old, args, kwargs)
        else:
            results = new(*args, **kwargs)
        flat = keras.tree.flatten(results)
        for tensor, result in zip(
            graph.output_tensors(node), flat, strict=True
        ):
            tensors[id(tensor)] = result

    def _own(self, value):
        """An argument of a call, without memory of the old model."""
        if isinstance(value, keras.Variable):
            if id(value) not in self.twins:
                self.twins[id(value)] = value, self._twin(value)
            return self.twins[id(value)][1]
        if ops.is_tensor(value):
            return ops.copy(ops.stop_gradient(value))
        return value

    def _twin(self, variable):
        """The new variable in the place of one that a call names.

        Tied weights are those of the layer that was made again. A variable of
        no layer is made again by itself.
        """
        for old, new in self.made.values():
            twin = weights.matching_variable(variable, old, new)
            if twin is not None:
                return twin
        if any(variable is each for each in self.root.variables):
            raise ConversionError(
                "An operation takes a weight of a layer that is called after "
                "it, which cannot be made again: call the layer first. "
                f"Received: variable={variable.path!r}"
            )
        return keras.Variable(
            values.read(variable),
            dtype=variable.dtype,
            trainable=variable.trainable,
            name=variable.name,
        )

    def _operation(self, node):
        """What is called in the new model where a node was in the old."""
        if id(node) in self.plan.thresholds:
            return self.plan.thresholds[id(node)]
        old = graph.operation(node)
        if id(old) not in self.made:
            self.made[id(old)] = old, self._copy(old)
        return self.made[id(old)][1]

    def _copy(self, old):
        if id(old) in self.plan.layers:
            return self.plan.layers[id(old)]
        if graph.is_graph_model(old):
            return self.model(old)
        if not isinstance(old, keras.layers.Layer):
            return graph.copy_operation(old)
        return _copy_layer(old)


@contextlib.contextmanager
def _policy_of(layer):
    """Lets what takes Keras' dtype policy of the moment take that of a layer.

    Models do, and layers that composite layers make for themselves.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(getattr(layer, "dtype_policy", before))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _call_with(new, old, args, kwargs):
    """Calls a layer with those of another's arguments that it knows."""
    given = inspect.signature(old.call).bind(*args, **kwargs).arguments
    inputs = given.pop("inputs")
    parameters = inspect.signature(new.call).parameters
    known = {k: v for k, v in given.items() if k in parameters}
    return new(inputs, **known)


def _copy_layer(layer):
    """The layer again from its config, with weights of its own."""
    if type(layer) is keras.layers.Lambda:
        return graph.copy_lambda(layer)
    try:
        with _policy_of(layer):
            return type(layer).from_config(layer.get_config())
    except Exception as error:
        raise ConversionError(
            f"{layer.name!r}, a {type(layer).__name__}, cannot be made again "
            f"from its config: {one_line(error)}"
        ) from error


def _match_trainable(old, new):
    """Sets `trainable` of a layer and of what is inside, outer ones first."""
    theirs, ours = graph.all_layers(old), graph.all_layers(new)
    if len(theirs) != len(ours):
        theirs, ours = theirs[:1], ours[:1]
    for source, target in zip(theirs, ours, strict=True):
        _set_trainable(source, target)


def _set_trainable(old, new):
    if old.trainable != new.trainable:
        new.trainable = old.trainable
