"""Entries of a conversion report: layers, activations and comparisons."""

import dataclasses

REPLACED = "replaced"
KEPT = "kept"
UNREACHABLE = "unreachable"
NOT_BATCH_NORM = "not batch normalization"


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation that follows a batch normalization.

    Attributes:
        path: Name of the activation, after the names of its nested models.
        was: Its function, such as `"relu"`, `"relu6"` or `"silu"`.
        becomes: The layer that replaces it, such as `"TLU"`, or None if it is
            kept.
    """

    path: str
    was: str
    becomes: str | None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A batch normalization layer and the changes to it.

    Attributes:
        path: Name of the layer, after the names of its nested models.
        layer: Name of its class.
        shape: Input shape, with None for unknown sizes; None if the layer is
            unreachable.
        action: `"replaced"`, `"kept"` or `"unreachable"`.
        becomes: Name of the new layer's class, or None.
        reason: Why the layer was not replaced, or None.
        activations: Tuple of `Activation`: the activations that the output
            reaches, also through additions and dropout.
        copied, created, dropped: Names of weights.
        function: `"exact"`, `"rounding"` or `"changed"`; None if the layer was
            not replaced.
        note: An additional remark, or None.
    """

    path: str
    layer: str
    shape: tuple | None
    action: str
    becomes: str | None = None
    reason: str | None = None
    activations: tuple = ()
    copied: tuple = ()
    created: tuple = ()
    dropped: tuple = ()
    function: str | None = None
    note: str | None = None

    @property
    def is_batch_norm(self):
        """True unless the entry lists another kind of normalization."""
        return self.reason != NOT_BATCH_NORM


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Difference between the outputs of two models on the same inputs.

    Attributes:
        inputs: `"random"` or `"given"`.
        num_samples: Number of samples in the inputs.
        largest: Largest absolute difference of the outputs.
        relative: The same, divided by the largest absolute output.
    """

    inputs: str
    num_samples: int
    largest: float
    relative: float


def plural(number, noun):
    """Returns a number with its noun: `"1 sample"`, `"2 samples"`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
