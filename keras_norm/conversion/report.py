"""What a conversion did, or would do, for people and for programs."""

import collections
import dataclasses
import io
import json

REPLACED = "replaced"
KEPT = "kept"
UNREACHABLE = "unreachable"


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation behind a batch normalization.

    Attributes:
        path: Where it is, nested models first.
        was: What it is, such as `"relu"`, `"relu6"`, `"silu"`.
        becomes: What takes its place, `"TLU"`, or None if it stays.
    """

    path: str
    was: str
    becomes: str | None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One batch normalization.

    Attributes:
        path: Where it is, nested models first.
        layer: Its class.
        shape: The shape of its input, None for unknown sizes; None as a whole
            if it is unreachable.
        action: `"replaced"`, `"kept"` or `"unreachable"`.
        becomes: The class of the layer in its place, or None.
        reason: Why it was not replaced, or None.
        activations: Tuple of `Activation`: those that its output reaches, also
            through additions and dropout.
        copied, created, dropped: Names of weights.
        function: `"exact"`, `"rounding"`, `"changed"`; None if not replaced.
        note: What else is to be known of it, or None.
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


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both models on the same inputs.

    Attributes:
        inputs: `"random"` or `"given"`.
        num_samples: How many.
        largest: The largest absolute difference of the outputs.
        relative: The same over the largest absolute output.
    """

    inputs: str
    num_samples: int
    largest: float
    relative: float


@dataclasses.dataclass
class ConversionReport:
    """Every batch normalization of a model, and what became of it.

    `str(report)` is a table, `report.to_json()` the same for programs.

    Attributes:
        model: Name of the model.
        norm: Name of the norm.
        entries: List of `Entry`, in the order of the computation.
        num_thresholds: How many TLUs were made.
        num_relus_kept: How many calls of a ReLU, capped or not, stay.
        notes: List of sentences on the model as a whole.
        comparisons: List of `Comparison`; empty without `verify=True`.
    """

    model: str
    norm: str
    entries: list
    num_thresholds: int = 0
    num_relus_kept: int = 0
    notes: list = dataclasses.field(default_factory=list)
    comparisons: list = dataclasses.field(default_factory=list)

    @property
    def replaced(self):
        """The entries that were replaced."""
        return [e for e in self.entries if e.action == REPLACED]

    @property
    def kept(self):
        """The entries that were left out by `include` or `exclude`."""
        return [e for e in self.entries if e.action == KEPT]

    @property
    def unreachable(self):
        """The entries that no graph leads to."""
        return [e for e in self.entries if e.action == UNREACHABLE]

    @property
    def function(self):
        """The model's function: `"exact"`, `"rounding"` or `"changed"`."""
        kinds = {entry.function for entry in self.replaced}
        for kind in ("changed", "rounding"):
            if kind in kinds:
                return kind
        return "exact"

    def summary(self):
        """One line: how many of what."""
        becomes = collections.Counter(e.becomes for e in self.replaced)
        parts = [f"{n} to {name}" for name, n in becomes.items()]
        parts += [f"{len(self.kept)} kept"] if self.kept else []
        if self.unreachable:
            parts.append(f"{len(self.unreachable)} not reached")
        relus = f"{self.num_relus_kept} ReLU kept"
        if self.num_thresholds:
            relus = f"{self.num_thresholds} TLU made, {relus}"
        noun = plural(len(self.entries), "batch normalization")
        return (
            f"{self.model}, {noun}: {', '.join(parts)}. {relus}. "
            f"{FUNCTIONS[self.function]}"
        )

    def to_dict(self):
        """The report as plain dicts and lists, counts and function included."""
        return {
            **dataclasses.asdict(self),
            "num_replaced": len(self.replaced),
            "num_kept": len(self.kept),
            "num_unreachable": len(self.unreachable),
            "function": self.function,
        }

    def to_json(self):
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self):
        from rich.console import Console

        from keras_norm.conversion import report_table

        console = Console(file=io.StringIO(), width=120)
        report_table.print_report(self, console)
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)


FUNCTIONS = {
    "exact": "The function is kept, to the last bit.",
    "rounding": "The function is kept, up to rounding.",
    "changed": "The function changes: fine-tune the result.",
}


def plural(number, noun):
    """`"1 sample"`, `"2 samples"`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
