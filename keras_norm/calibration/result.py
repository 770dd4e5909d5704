"""Result of a calibration: the fit of every layer, and what remains."""

import dataclasses

import numpy as np

# Share of the batch normalization's variance below which a fit is poor.
POOR_FIT = 0.5
# Examples below which a calibration depends on the draw of the examples.
FEW_EXAMPLES = 64


@dataclasses.dataclass(frozen=True)
class OutputAgreement:
    """Agreement of one output of both models on held-out examples.

    Attributes:
        output: Name of the output.
        same_class: Share of the examples with the same largest value; None for
            an output that does not have classes.
        relative_error: Mean squared difference, relative to the variance of the
            original model's output.
    """

    output: str
    same_class: float | None
    relative_error: float


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
    """Result of a calibration.

    Attributes:
        num_read: Number of examples in the data.
        num_fitted: Number of examples that the layers were fitted to.
        num_held_out: Number of examples that both models were compared on.
        refit: The argument `refit` of `convert`.
        seconds: Time in seconds.
        layers: List of `NormFit`, in the order of computation.
        agreements: List of `OutputAgreement`.
        distillation: `DistillationResult`; None without distillation.
        warnings: List of reasons why the result may not be trusted.
        notes: List of other remarks.
    """

    num_read: int
    num_fitted: int
    num_held_out: int
    refit: str
    seconds: float
    layers: list
    agreements: list
    distillation: object
    warnings: list
    notes: list

    def describe(self):
        """Returns lines: the result, remarks, and warnings."""
        warnings = [f"warning: {text}" for text in self.warnings]
        return [self.summary(), *self.notes, *warnings]

    def summary(self):
        """Returns one line on the agreement of the models."""
        parts = []
        for agreement in self.agreements:
            text = f"relative error {agreement.relative_error:.2g}"
            if agreement.same_class is not None:
                text = f"{agreement.same_class:.1%} same class, {text}"
            if len(self.agreements) > 1:
                text = f"{agreement.output}: {text}"
            parts.append(text)
        trained = ""
        if self.distillation is not None:
            trained = f", {self.distillation.summary()}"
        return (
            f"Calibrated on {self.num_fitted} examples in {self.seconds:.0f} s "
            f"(refit={self.refit!r}{trained}). On {self.num_held_out} other "
            f"examples: {'; '.join(parts)}."
        )


def measure_agreement(name, old, new):
    """Returns the `OutputAgreement` of two float64 arrays `(N, ...)`."""
    same_class = None
    if old.ndim == 2 and old.shape[1] > 1:
        same = old.argmax(axis=1) == new.argmax(axis=1)
        same_class = float(same.mean())
    error = np.mean((new - old) ** 2)
    variance = np.mean((old - old.mean(axis=0)) ** 2)
    if variance == 0:
        variance = np.mean(old**2) or 1.0
    return OutputAgreement(name, same_class, float(error / variance))


def find_warnings(num_fitted, fits):
    """Returns a list of reasons why a calibration may not be trusted.

    Args:
        num_fitted: Number of examples that the layers were fitted to.
        fits: List of `NormFit`.
    """
    found = []
    if num_fitted < FEW_EXAMPLES:
        found.append(
            f"Only {num_fitted} examples: the result depends on which they "
            "are. Pass 256."
        )
    poor = [fit for fit in fits if fit.explained_after < POOR_FIT]
    if poor:
        worst = min(poor, key=lambda fit: fit.explained_after)
        found.append(
            f"{len(poor)} of {len(fits)} norms explain less than "
            f"{POOR_FIT:.0%} of the variance of the batch normalization's "
            f"output, {worst.path} {max(worst.explained_after, 0):.0%}."
        )
    dead = [fit for fit in fits if fit.num_constant]
    if dead:
        listed = [f"{fit.path} {fit.num_constant}" for fit in dead]
        shown = ", ".join(listed[:5]) + (", ..." if len(dead) > 5 else "")
        found.append(
            f"{sum(fit.num_constant for fit in dead)} channels are constant on "
            f"these examples and got a gamma of 0 ({shown}): pass examples "
            "on which they vary."
        )
    return found
