"""Report of a recalibration, as a table or as JSON."""

import dataclasses

from keras_norm.conversion import report_table
from keras_norm.conversion.entries import plural
from keras_norm.conversion.report import LayerReport

RECALIBRATED = "recalibrated"


@dataclasses.dataclass(frozen=True)
class StatisticsEntry:
    """A normalization layer and the change of its moving statistics.

    Attributes:
        path: Name of the layer, after the names of its nested models.
        layer: Name of its class.
        action: `"recalibrated"` or `"kept"`.
        reason: Why the layer was kept, or None.
        num_values: Number of values behind each channel's moments: the largest
            number of all channels if a mask makes them differ.
        mean_shift: Largest change of a channel's mean, in old standard
            deviations, `abs(new - old) / sqrt(old_variance + epsilon)`. None if
            the old statistics were not finite.
        variance_ratio: Smallest and largest `(new + epsilon) / (old + epsilon)`
            of the variances, or None.
        mean_mix, variance_mix: New mixing values of EvalNorm, or None.
        num_passes: Number of passes over the data for the layer's stage. More
            than 1 for a layer whose input depends on its own statistics.
    """

    path: str
    layer: str
    action: str
    reason: str | None = None
    num_values: int | None = None
    mean_shift: float | None = None
    variance_ratio: tuple | None = None
    mean_mix: float | None = None
    variance_mix: float | None = None
    num_passes: int | None = None


@dataclasses.dataclass
class RecalibrationReport(LayerReport):
    """Lists every layer with moving statistics and their change.

    `str(report)` is a table, and `report.to_json()` holds the same for
    programs.

    Attributes:
        model: Name of the model.
        method: `"exact"` or `"batch"`.
        prior: Number of examples that the old statistics counted for.
        num_examples: Number of examples in the data.
        num_passes: Number of passes over the data or over activations.
        seconds: Time of all passes.
        entries: List of `StatisticsEntry`, in the order of computation.
        notes: List of remarks.
    """

    model: str
    method: str
    prior: float
    num_examples: int
    num_passes: int
    seconds: float
    entries: list
    notes: list = dataclasses.field(default_factory=list)

    @property
    def recalibrated(self):
        """Entries of the layers whose statistics were recomputed."""
        return [e for e in self.entries if e.action == RECALIBRATED]

    def summary(self):
        """Returns one line with the number of layers, examples and passes."""
        counts = [f"{len(self.recalibrated)} recalibrated"]
        counts += [f"{len(self.kept)} kept"] if self.kept else []
        prior = f", prior of {self.prior:g}" if self.prior else ""
        return (
            f"{self.model}, {plural(len(self.entries), 'layer')} with moving "
            f"statistics: {', '.join(counts)}. Method {self.method}, "
            f"{plural(self.num_examples, 'example')}{prior}, "
            f"{plural(self.num_passes, 'pass').replace('passs', 'passes')}, "
            f"{self.seconds:.1f} s."
        )

    def to_dict(self):
        """Returns the report as plain dicts and lists, with its counts."""
        return {
            **dataclasses.asdict(self),
            "num_recalibrated": len(self.recalibrated),
            "num_kept": len(self.kept),
        }

    def print(self, console):
        """Prints the table and the remarks to a rich console."""
        rows = [
            (entry.path, *_cells(entry), "dim" if entry.reason else "")
            for entry in self.entries
        ]
        columns = "layer", "class", "values", "mean moved by", "variance times"
        lines = [self.summary(), *self.notes]
        lines += [
            f"{e.path}: mean_mix {e.mean_mix:.4f}, variance_mix "
            f"{e.variance_mix:.4f}"
            for e in self.recalibrated
            if e.mean_mix is not None
        ]
        report_table.print_table(console, columns, rows, lines)


def _cells(entry):
    if entry.reason:
        return f"{entry.action}: {entry.reason}", "", "", ""
    shift = ratio = "?"
    if entry.mean_shift is not None:
        shift = f"{entry.mean_shift:.3g} std"
        ratio = " to ".join(f"{value:.3g}" for value in entry.variance_ratio)
    return entry.layer, f"{entry.num_values:,}", shift, ratio
