"""Activations of the original and of the converted model, batch by batch."""

import contextlib
import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Pair:
    """A tensor of both models, on every batch.

    Attributes:
        old: List of the original model's tensors, one for each batch.
        new: List of the converted model's; the same list where no earlier
            layer was converted.
    """

    old: list
    new: list

    @property
    def is_equal(self):
        """True if the models agree on this tensor."""
        return self.old is self.new


def select(structure, side, index):
    """Returns a call's arguments on one batch.

    Args:
        structure: `args` or `kwargs` with `Pair` objects.
        side: `"old"` or `"new"`.
        index: Number of the batch.
    """
    return keras.tree.map_structure(
        lambda x: getattr(x, side)[index] if isinstance(x, Pair) else x,
        structure,
    )


def find_pairs(structure):
    """Returns the `Pair` objects in a call's arguments."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, Pair)]


def run_operation(operation, args, kwargs):
    """Calls an operation at inference; returns the flat list of its outputs.

    Layers keep their state: a call with `training=True` in the graph does not
    update it. Masks stay attached to the outputs.
    """
    with keras.StatelessScope(), _no_gradients():
        return keras.tree.flatten(operation(*args, **kwargs))


def _no_gradients():
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
