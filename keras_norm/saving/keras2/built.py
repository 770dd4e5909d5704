"""The layers of a file and the layers that were built for them."""

import dataclasses

import keras

from keras_norm.saving.keras2 import expansions


@dataclasses.dataclass
class Built:
    """A layer of the file and what was built for it.

    Attributes:
        saved: Dict with the class name and the config, from the file.
        layer: Layer or model of Keras 3, or None for an operation.
        children: Layers of a model, in the order of the file.
        wrapped: For a wrapper of a model, the model.
    """

    saved: dict
    layer: object
    children: list = dataclasses.field(default_factory=list)
    wrapped: object = None

    @property
    def name(self):
        return self.saved["config"].get("name")


def set_trainable(built):
    """Freezes the layers that the file has frozen, outer models first."""
    config = built.saved["config"]
    trainable = config.get("trainable", True)
    if isinstance(built.layer, keras.layers.Layer) and not trainable:
        built.layer.trainable = False
    elif isinstance(built.layer, expansions.Expansion) and not trainable:
        built.layer.freeze()
    for child in [*built.children, *filter(None, [built.wrapped])]:
        set_trainable(child)
