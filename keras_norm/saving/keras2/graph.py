"""Calls the layers of a functional model of Keras 2."""

import collections

import keras

from keras_norm.errors import ConversionError
from keras_norm.saving import keras_internals
from keras_norm.saving.keras2 import expansions
from keras_norm.saving.keras2 import operations
from keras_norm.saving.keras2 import translate
from keras_norm.saving.keras2.built import Built

CONSTANT = "_CONSTANT_VALUE"


class Graph:
    """The calls of the layers of a functional model."""

    def __init__(self, builder, config):
        self.config = config
        self.builder = builder
        self.built = {}
        self._outputs = collections.defaultdict(list)
        self._offsets = {}

    def run(self):
        """Builds and calls all layers; returns the inputs and outputs."""
        for saved in self.config["layers"]:
            name = saved.get("name", saved["config"].get("name"))
            if name in self.built:
                raise _damaged(f"two layers have the name {name[:80]!r}")
            if saved["class_name"] in translate.OPERATIONS:
                self.built[name] = Built(saved, None)
            else:
                self.built[name] = self.builder.build(saved)
            if translate.class_name(saved) == "InputLayer":
                self._outputs[name].append([self.built[name].layer.output])
        self._find_offsets()
        self._call_layers()
        return tuple(
            _unwrap(self._structure(self.config[key]))
            for key in ("input_layers", "output_layers")
        )

    def _find_offsets(self):
        """Finds the nested models whose calls are counted from one."""
        nodes = [x["inbound_nodes"] for x in self.config["layers"]]
        last = collections.Counter()
        for name, call, *_ in _references(
            [nodes, self.config["output_layers"]]
        ):
            last[name] = max(last[name], call)
        for saved in self.config["layers"]:
            name, count = saved["name"], len(saved["inbound_nodes"])
            self._offsets[name] = int(
                translate.is_model(saved) and last[name] >= count
            )

    def _call_layers(self):
        """Calls every layer as soon as the inputs of the call exist."""
        waiting, blocked = collections.deque(), collections.defaultdict(list)
        for saved in self.config["layers"]:
            nodes = saved["inbound_nodes"]
            if nodes and translate.class_name(saved) != "InputLayer":
                waiting.append((saved, 0))
        num_blocked = 0
        while waiting:
            saved, call = waiting.popleft()
            node = saved["inbound_nodes"][call]
            missing = self._missing(saved["name"], node)
            if missing is not None:
                blocked[missing].append((saved, call))
                num_blocked += 1
                continue
            self._outputs[saved["name"]].append(self._call(saved, node))
            done = saved["name"], len(self._outputs[saved["name"]]) - 1
            for entry in blocked.pop(done, ()):
                num_blocked -= 1
                waiting.append(entry)
            if call + 1 < len(saved["inbound_nodes"]):
                waiting.append((saved, call + 1))
        if num_blocked:
            raise _damaged(
                "the calls of its layers form a loop, or take tensors that no "
                "layer outputs"
            )

    def _missing(self, caller, node):
        """Returns the first call whose outputs a call still needs, or None."""
        found = False
        for name, call, *_ in _references(node):
            if name == CONSTANT:
                continue
            found = True
            if name not in self.built:
                raise _damaged(f"{str(name)[:80]!r} is called but not a layer")
            call -= self._offsets[name]
            if call >= len(self._outputs[name]):
                return name, call
        if not found:
            raise _damaged(
                f"it does not contain the inputs of {str(caller)[:80]!r}"
            )
        return None

    def _call(self, saved, node):
        """Returns the list of the output tensors of a call."""
        inputs, kwargs = self._arguments(node)
        built = self.built[saved["name"]]
        if built.layer is None:
            outputs = operations.call(saved, inputs, kwargs)
            keras_internals.name_operations(
                outputs, [inputs, kwargs], self.builder.rename(saved["name"])
            )
        else:
            outputs = call_layer(built.layer, inputs, kwargs)
        return keras.tree.flatten(outputs)

    def _arguments(self, node):
        """Returns the first argument of a call and its keyword arguments."""
        kwargs = {}

        def convert(value):
            if _is_reference(value):
                for key, given in (value[3] if len(value) > 3 else {}).items():
                    kwargs[key] = self._argument(given)
                return value[2] if value[0] == CONSTANT else self._tensor(value)
            if isinstance(value, dict):
                return {key: convert(item) for key, item in value.items()}
            if not isinstance(value, list):
                raise _damaged(f"a layer is called on {str(value)[:80]!r}")
            return [convert(item) for item in value]

        inputs = convert(node)
        if isinstance(inputs, list) and len(inputs) == 1 and node:
            (inputs,) = inputs
        return inputs, kwargs

    def _argument(self, value):
        """Returns a keyword argument, with tensors of the graph."""
        if _is_reference(value) and value[0] in self.built:
            return self._tensor(value)
        if isinstance(value, list):
            return [self._argument(item) for item in value]
        if isinstance(value, dict) and "class_name" not in value:
            return {key: self._argument(item) for key, item in value.items()}
        return value

    def _structure(self, value):
        if _is_reference(value):
            return self._tensor(value)
        if isinstance(value, dict):
            return {key: self._structure(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._structure(item) for item in value]
        raise _damaged(f"its outputs are {str(value)[:80]}")

    def _tensor(self, reference):
        name, call, index = reference[:3]
        try:
            outputs = self._outputs[name][call - self._offsets[name]]
            return outputs[index]
        except (IndexError, KeyError) as error:
            raise _damaged(
                f"no layer outputs {str(reference[:3])[:80]}"
            ) from error


def call_layer(layer, inputs, kwargs):
    """Calls a layer as Keras 2 did."""
    if isinstance(layer, expansions.Expansion):
        return layer(inputs)
    recurrent = keras.layers.RNN, keras.layers.Bidirectional
    if isinstance(layer, recurrent) and isinstance(inputs, list):
        # Keras 2 passed the states with the inputs.
        inputs, *states = inputs
        kwargs = {**kwargs, "initial_state": states}
    accepted = keras_internals.call_arguments(layer)
    unknown = {
        key: value for key, value in kwargs.items() if key not in accepted
    }
    for key, value in unknown.items():
        if value is not None and key not in ("training", "mask"):
            raise translate.refusal(
                layer.name, type(layer).__name__, f"{key} of a call"
            )
    kwargs = {key: value for key, value in kwargs.items() if key in accepted}
    return layer(inputs, **kwargs)


def _is_reference(value):
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and (isinstance(value[2], int) or value[0] == CONSTANT)
        and (len(value) == 3 or isinstance(value[3], dict))
    )


def _references(value):
    """Yields the references to tensors in lists and dicts."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if _is_reference(value):
            yield value
            if len(value) > 3:
                waiting.append(value[3])
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _unwrap(value):
    one = isinstance(value, list) and len(value) == 1
    return value[0] if one else value


def _damaged(problem):
    return ConversionError(f"the file is damaged: {problem}")
