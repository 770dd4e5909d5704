"""Private names of Keras that training needs, the same in Keras 3.12 to 3.15.

`CompileLoss` finds the target, the output and the sample weight that belong to
each loss; `_flat_losses` lists the losses once it is built. `apply_mask` merges
a mask into sample weights. A mask is an attribute of a tensor, and the
`RematScope` in which it was made is one of a layer.
"""

import keras
from keras.src.backend import get_keras_mask
from keras.src.backend import set_keras_mask
from keras.src.losses.loss import apply_mask
from keras.src.trainers.compile_utils import CompileLoss

__all__ = [
    "CompileLoss",
    "apply_mask",
    "get_masks",
    "is_rematerialized",
    "set_masks",
]


def get_masks(outputs):
    """Masks of the outputs of a model in a flat list, None where there is none.

    Slices and outputs of `tf.function` lose the mask of a tensor.
    """
    return [get_keras_mask(t) for t in keras.tree.flatten(outputs)]


def set_masks(outputs, masks):
    """Gives outputs back the masks that `get_masks` read."""
    for tensor, mask in zip(keras.tree.flatten(outputs), masks, strict=True):
        if mask is not None:
            set_keras_mask(tensor, mask)


def is_rematerialized(layer):
    """Whether a layer was made in a `keras.RematScope` that applies to it."""
    scope = getattr(layer, "_remat_mode", None)
    if scope is None or scope.mode in (None, "activations"):
        return False
    if scope.mode == "list_of_layers":
        return layer.name in scope.layer_names
    return True
