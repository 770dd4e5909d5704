"""Report of a folding, as a table or as JSON."""

import dataclasses

from keras_norm.conversion import report_table
from keras_norm.conversion.entries import plural
from keras_norm.conversion.report import LayerReport

FOLDED = "folded"


@dataclasses.dataclass(frozen=True)
class FoldEntry:
    """A batch normalization layer and where it went.

    Attributes:
        path: Name of the layer, after the names of its nested models.
        layer: Name of its class.
        shape: Input shape, with None for unknown sizes; None if the layer is
            unreachable.
        action: `"folded"`, `"kept"` or `"unreachable"`.
        direction: `"backward"` into the layers before it, `"forward"` into the
            layers behind it, or None.
        into: Tuple of the paths of the layers that contain it now.
        reason: Why it was not folded, or None.
    """

    path: str
    layer: str
    shape: tuple | None
    action: str
    direction: str | None = None
    into: tuple = ()
    reason: str | None = None


@dataclasses.dataclass
class FoldReport(LayerReport):
    """Lists every batch normalization of a model that was folded or stays.

    The model that comes with it is folded: it computes the same at inference,
    and is another network when it is trained. `str(report)` is a table, and
    `report.to_json()` holds the same for programs.

    Attributes:
        model: Name of the model.
        entries: List of `FoldEntry`, in the order of computation.
        num_paddings: Number of `ConstantPadding` layers that were created.
        notes: List of remarks on the model as a whole.
        comparisons: List of `Comparison`; empty without `verify`.
    """

    model: str
    entries: list
    num_paddings: int = 0
    notes: list = dataclasses.field(default_factory=list)
    comparisons: list = dataclasses.field(default_factory=list)

    process = "folding"
    # Equivalence of the models, as in a `ConversionReport`.
    function = "rounding"

    @property
    def folded(self):
        """Entries of the layers that were folded."""
        return [e for e in self.entries if e.action == FOLDED]

    def summary(self):
        """Returns one line with the number of folded layers."""
        total = plural(len(self.entries), "batch normalization")
        line = f"{self.model}: {len(self.folded)} of {total} folded"
        if self.num_paddings:
            line += f", {plural(self.num_paddings, 'ConstantPadding')} created"
        return (
            f"{line}. Numerically equivalent at inference, up to rounding; "
            "another network in training."
        )

    def to_dict(self):
        """Returns the report as plain dicts and lists, with its counts."""
        return {
            **dataclasses.asdict(self),
            "num_folded": len(self.folded),
            "num_kept": len(self.kept),
            "num_unreachable": len(self.unreachable),
        }

    def print(self, console):
        """Prints the table and the remarks to a rich console."""
        rows = []
        for entry in self.entries:
            if entry.action == FOLDED:
                cells = entry.path, entry.direction, list(entry.into)
            else:
                cells = entry.path, f"{entry.action}: {entry.reason}", ""
            rows.append((*cells, report_table.STYLES.get(entry.action, "")))
        lines = [self.summary(), *self.notes]
        lines += [
            report_table.describe_comparison(c, self) for c in self.comparisons
        ]
        report_table.print_table(
            console, ("batch normalization", "folded", "into"), rows, lines
        )
