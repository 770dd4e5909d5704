"""Builds models of Keras 3 from the configs of models of Keras 2."""

import re

import keras

from keras_norm.errors import ConversionError
from keras_norm.saving.keras2 import compare
from keras_norm.saving.keras2 import expansions
from keras_norm.saving.keras2 import layer_table
from keras_norm.saving.keras2 import translate
from keras_norm.saving.keras2.built import Built
from keras_norm.saving.keras2.graph import Graph


class Builder:
    """Builds a model and keeps what was built for each layer of the file.

    Args:
        notes: List of strings, to which remarks for the user are added.
        check: Function of the saved form of a layer, which raises an error if
            Keras must not read it.
        names: Names of all layers in the file.
        modern: If True, the file names the modules of classes (`.keras`).
        safe_mode: If True, code in the file does not run.
    """

    def __init__(self, notes, check, names, modern, safe_mode):
        self.renamed = {}
        self._check = check
        self._names = names
        self._notes = notes
        self._modern = modern
        self._safe_mode = safe_mode
        self._shared = {}

    def build(self, saved):
        """Returns the `Built` of a layer or model, from its saved form."""
        key = saved.get("shared_object_id")
        if key is None or key not in self._shared:
            kind = translate.class_name(saved)
            if kind == "Sequential":
                built = self._build_sequential(saved)
            elif kind in translate.MODELS:
                built = self._build_functional(saved)
            else:
                built = self._build_layer(saved)
            if key is None:
                return built
            self._shared[key] = built
        return self._shared[key]

    def _build_layer(self, saved):
        inner = saved["config"].get("layer")
        if translate.is_model(inner):
            return self._build_wrapper(saved, inner)
        kind = translate.class_name(saved)
        if kind in layer_table.REMOVED:
            raise ConversionError(
                f"the file contains {saved['config'].get('name')!r}, a {kind} "
                "of Keras 2, which Keras 3 does not have: build the model "
                "without it"
            )
        new = translate.translate(saved, self._notes, self._modern)
        config = new["config"]
        config["name"] = self.rename(config.get("name"))
        # Weights are restored in the order of a layer that is not frozen.
        config.pop("trainable", None)
        self._check(new)
        if expansions.is_needed(new):
            return Built(saved, expansions.Expansion(new))
        layer = self._deserialize(saved, new)
        if isinstance(layer, keras.layers.Layer):
            compare.check_layer(layer, new, saved)
        return Built(saved, layer)

    def _deserialize(self, saved, new):
        try:
            return keras.saving.deserialize_keras_object(
                new, safe_mode=self._safe_mode
            )
        except (TypeError, ValueError) as error:
            text = str(error)
            if "safe_mode" in text or isinstance(error, ConversionError):
                raise
            unexpected = compare.unexpected_argument(text, new["config"])
            if unexpected is None:
                raise
            raise translate.refusal(
                saved["config"].get("name"), saved["class_name"], unexpected
            ) from error

    def _build_wrapper(self, saved, inner):
        wrapped = self.build(inner)
        config = dict(saved["config"], layer=None)
        new = translate.translate(
            {**saved, "config": config}, self._notes, self._modern
        )
        config = new["config"]
        del config["layer"]
        config.pop("trainable", None)
        config["name"] = self.rename(config.get("name"))
        cls = getattr(keras.layers, new["class_name"], None)
        if cls is None or "backward_layer" in config:
            raise translate.refusal(
                config["name"], saved["class_name"], f"layer={inner['config']}"
            )
        return Built(saved, cls(wrapped.layer, **config), wrapped=wrapped)

    def _build_sequential(self, saved):
        config = saved["config"]
        if isinstance(config, list):
            config = {"layers": config}
        saved = {**saved, "config": config}
        children = [self.build(layer) for layer in config["layers"]]
        name = self.rename(config.get("name"))
        source = self._missing_input(config)
        layers = [] if source is None else [source]
        for child in children:
            layers += self._stack(child, layers)
        model = keras.Sequential(layers, name=name)
        shape = config.get("build_input_shape")
        if shape and not model.built:
            model.build(shape)
        return Built(saved, model, children)

    def _stack(self, built, layers):
        """Returns the layers that a Sequential gets for a layer of the file."""
        if not isinstance(built.layer, expansions.Expansion):
            return [built.layer]
        if len(layers) == 1 and isinstance(layers[0], keras.layers.InputLayer):
            return built.layer.make_layers(layers[0].batch_shape)
        return built.layer.make_layers(keras.Sequential(layers).output_shape)

    def _missing_input(self, config):
        """Returns the input of a Sequential that does not list it, or None."""
        first = config["layers"][0] if config["layers"] else {"config": {}}
        shape = first["config"].get("batch_input_shape")
        if not shape or first["class_name"] == "InputLayer":
            return None
        name = first["config"]["name"]
        self._notes.append(
            f"The Sequential model {config.get('name', 'sequential')!r} of "
            f"Keras 2 starts with {name!r}: added a keras.Input of shape "
            f"{tuple(shape)}."
        )
        dtype = first["config"].get("dtype")
        return keras.layers.InputLayer(
            batch_shape=shape,
            # Tokens are integers, whatever the layer outputs.
            dtype="int32"
            if first["class_name"] == "Embedding"
            else (dtype if isinstance(dtype, str) else None),
            name=f"{self.rename(name)}_input",
        )

    def _build_functional(self, saved):
        graph = Graph(self, saved["config"])
        inputs, outputs = graph.run()
        model = keras.Model(
            inputs, outputs, name=self.rename(saved["config"].get("name"))
        )
        return Built(saved, model, list(graph.built.values()))

    def rename(self, name):
        """Returns a name without "/", which Keras 3 does not accept."""
        if not isinstance(name, str) or "/" not in name:
            return name
        if name not in self.renamed:
            new = re.sub("/+", "_", name).strip("_") or "layer"
            used = set(self.renamed.values()) | self._names
            free, number = new, 1
            while free in used:
                free, number = f"{new}_{number}", number + 1
            self.renamed[name] = free
        return self.renamed[name]
