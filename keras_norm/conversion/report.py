"""Report of a conversion, as a table or as JSON."""

import collections
import dataclasses
import io
import json

from rich.console import Console

from keras_norm.conversion import report_table
from keras_norm.conversion.entries import KEPT
from keras_norm.conversion.entries import REPLACED
from keras_norm.conversion.entries import UNREACHABLE
from keras_norm.conversion.entries import plural

FUNCTIONS = {
    "exact": "Numerically equivalent, bit for bit.",
    "rounding": "Numerically equivalent, up to rounding.",
    "changed": "The outputs change: fine-tune the result.",
}


class LayerReport:
    """Base of reports with an entry for each layer.

    Subclasses are dataclasses with `entries`, and define `to_dict()` and
    `print(console)`.
    """

    @property
    def kept(self):
        """Entries of the layers that stay as they are."""
        return [e for e in self.entries if e.action == KEPT]

    @property
    def unreachable(self):
        """Entries of the layers outside the functional graph."""
        return [e for e in self.entries if e.action == UNREACHABLE]

    def to_json(self):
        """Returns the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self):
        console = Console(file=io.StringIO(), width=120)
        self.print(console)
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)


@dataclasses.dataclass
class ConversionReport(LayerReport):
    """Lists every batch normalization of a model and the changes to it.

    `str(report)` is a table, and `report.to_json()` holds the same for
    programs.

    Attributes:
        model: Name of the model.
        norm: Name of the norm.
        entries: List of `Entry`, in the order of computation.
        num_thresholds: Number of TLU layers that were created.
        num_relus_kept: Number of ReLU calls, capped or not, that are kept.
        notes: List of remarks on the model as a whole.
        comparisons: List of `Comparison`; empty without `verify=True`.
        calibration: `CalibrationResult`; None without `data`.
    """

    model: str
    norm: str
    entries: list
    num_thresholds: int = 0
    num_relus_kept: int = 0
    notes: list = dataclasses.field(default_factory=list)
    comparisons: list = dataclasses.field(default_factory=list)
    calibration: object = None

    process = "conversion"

    @property
    def replaced(self):
        """Entries of the layers that were replaced."""
        return [e for e in self.entries if e.action == REPLACED]

    @property
    def function(self):
        """Equivalence of the models: `"exact"`, `"rounding"`, `"changed"`."""
        kinds = {entry.function for entry in self.replaced}
        for kind in ("changed", "rounding"):
            if kind in kinds:
                return kind
        return "exact"

    def summary(self):
        """Returns one line with the number of layers per action."""
        becomes = collections.Counter(e.becomes for e in self.replaced)
        counts = [f"{n} to {name}" for name, n in becomes.items()]
        counts += [f"{len(self.kept)} kept"] if self.kept else []
        if self.unreachable:
            counts.append(f"{len(self.unreachable)} unreachable")
        relus = f"{self.num_relus_kept} ReLU kept"
        if self.num_thresholds:
            relus = f"{self.num_thresholds} TLU created, {relus}"
        noun = plural(len(self.entries), "batch normalization")
        return (
            f"{self.model}, {noun}: {', '.join(counts)}. {relus}. "
            f"{FUNCTIONS[self.function]}"
        )

    def to_dict(self):
        """Returns the report as plain dicts and lists, with its counts."""
        return {
            **dataclasses.asdict(self),
            "num_replaced": len(self.replaced),
            "num_kept": len(self.kept),
            "num_unreachable": len(self.unreachable),
            "function": self.function,
        }

    def print(self, console):
        """Prints the table and the remarks to a rich console."""
        report_table.print_report(self, console)
