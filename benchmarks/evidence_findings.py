"""Compares the results of the evidence with the claims of the papers."""

import dataclasses
import math

import pandas as pd

# A difference is clear if it exceeds this many of its standard deviations.
CLEAR = 2
FRN, RELU = "--norm=frn", "--norm=frn --activation=relu"
BN, GN, RBN = "--norm=bn", "--norm=gn", "--norm=rbn"
FIXED_EPSILON = (
    '--norm=frn --norm_kwargs=\'{"learned_epsilon_initializer": "zeros"}\''
)
FRN_LARGE = "FRN with TLU is better than BN for large batches"
FRN_SMALL = "FRN with TLU is better than BN for small batches"
BN_LOSES = "BN loses accuracy with small batches"
FRN_LOSES_LESS = "FRN loses less accuracy than BN with small batches"
RBN_BETTER = "RBN is better than BN"
RBN_SMALL = "RBN is better than BN for small batches"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two means over seeds.

    Attributes:
        mean: The difference.
        deviation: Its standard deviation, computed from the two sample standard
            deviations; None if one of them has a single seed.
    """

    mean: float
    deviation: float | None

    @property
    def is_clear(self):
        if self.deviation is None:
            return False
        return abs(self.mean) > CLEAR * self.deviation

    def format(self):
        """Formats the difference in percentage points, as `+0.31 ± 0.12`."""
        mean = f"{100 * self.mean:+.2f}"
        if self.deviation is None:
            return f"{mean} (one seed)"
        return f"{mean} ± {100 * self.deviation:.2f}"


def subtract(first, second):
    """Computes the `Difference` of two series; None if one is empty."""
    first, second = pd.Series(first), pd.Series(second)
    if first.empty or second.empty:
        return None
    deviation = None
    if len(first) > 1 and len(second) > 1:
        deviation = math.hypot(first.sem(), second.sem())
    return Difference(float(first.mean() - second.mean()), deviation)


def subtract_differences(first, second):
    """Computes the `Difference` of two differences; None if one is None."""
    if first is None or second is None:
        return None
    deviation = None
    if first.deviation is not None and second.deviation is not None:
        deviation = math.hypot(first.deviation, second.deviation)
    return Difference(first.mean - second.mean, deviation)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper and the measured difference.

    Attributes:
        text: The claim.
        found: The `Difference` in accuracy, which is positive if the claim
            holds; None if it was not measured.
        compared: The two things that were compared.
    """

    text: str
    found: Difference | None
    compared: str

    @property
    def verdict(self):
        if self.found is None:
            return "not run"
        if not self.found.is_clear:
            return "not decided"
        return "holds" if self.found.mean > 0 else "does not hold"

    @property
    def points(self):
        return "" if self.found is None else self.found.format()


def make_claims(tables, long_rows=()):
    """Makes the list of `Claim`, those that do not hold first.

    Args:
        tables: Dict from the name of a grid to its `results.Table`.
        long_rows: Rows of docs/results/long_training.json.
    """
    claims = [
        *_compare_batch_sizes(tables.get("batch")),
        *_compare_norms(tables),
        *_compare_long(long_rows),
    ]
    order = ["does not hold", "not decided", "holds", "not run"]
    return sorted(claims, key=lambda claim: order.index(claim.verdict))


def _compare_batch_sizes(table):
    large, small = get_ends(table)

    def compare(text, first, second, compared):
        values = [_get(table, *key) for key in (first, second)]
        return Claim(text, subtract(*values), compared)

    def get_loss(norm):
        return subtract(_get(table, norm, large), _get(table, norm, small))

    at_large = f"{large} images per replica"
    at_small = f"{small} images per replica"
    yield compare(
        FRN_LARGE, (FRN, large), (BN, large), f"`frn` minus `bn`, {at_large}"
    )
    yield compare(
        FRN_SMALL, (FRN, small), (BN, small), f"`frn` minus `bn`, {at_small}"
    )
    yield compare(
        "FRN with TLU is better than GN for small batches",
        (FRN, small),
        (GN, small),
        f"`frn` minus `gn`, {at_small}",
    )
    yield Claim(
        BN_LOSES,
        get_loss(BN),
        f"`bn`, {large} minus {small} images per replica",
    )
    yield Claim(
        FRN_LOSES_LESS,
        subtract_differences(get_loss(BN), get_loss(FRN)),
        f"loss of `bn` minus loss of `frn`, from {large} to {small} images",
    )
    yield compare(
        "TLU is better than ReLU after FRN",
        (FRN, large),
        (RELU, large),
        f"`frn` minus `frn --activation=relu`, {at_large}",
    )
    yield compare(
        RBN_SMALL, (RBN, small), (BN, small), f"`rbn` minus `bn`, {at_small}"
    )


def _compare_norms(tables):
    for name, dataset in (
        ("curves", "Fashion-MNIST"),
        ("trees", "tree patches"),
    ):
        table = tables.get(name)
        found = subtract(_get(table, RBN), _get(table, BN))
        yield Claim(RBN_BETTER, found, f"`rbn` minus `bn`, {dataset}")
    table = tables.get("epsilon")
    yield Claim(
        "FRN needs a learned epsilon on 1x1 maps and in dense layers",
        subtract(_get(table, FRN), _get(table, FIXED_EPSILON)),
        "`frn` minus `frn` with an epsilon of 1e-6, narrow VGG-A",
    )


def _compare_long(rows):
    """Makes the claims about longer training of a deeper network."""
    accuracies = {
        (row["norm"], row["batch_size"]): row["accuracies"][-1] for row in rows
    }
    if not accuracies:
        return
    sizes = [size for _, size in accuracies]
    large, small = max(sizes), min(sizes)

    def compare(first, second):
        return subtract(accuracies.get(first, []), accuracies.get(second, []))

    longer = "longer training"
    for text, norm, size in (
        (FRN_LARGE, "frn", large),
        (FRN_SMALL, "frn", small),
        (RBN_BETTER, "rbn", large),
        (RBN_SMALL, "rbn", small),
    ):
        found = compare((norm, size), ("bn", size))
        yield Claim(text, found, f"`{norm}` minus `bn`, batch {size}, {longer}")
    losses = {n: compare((n, large), (n, small)) for n in ("bn", "frn")}
    yield Claim(
        BN_LOSES,
        losses["bn"],
        f"`bn`, batch {large} minus batch {small}, {longer}",
    )
    yield Claim(
        FRN_LOSES_LESS,
        subtract_differences(losses["bn"], losses["frn"]),
        f"loss of `bn` minus loss of `frn`, from {large} to {small}, {longer}",
    )


def get_ends(table):
    """Returns the largest and the smallest value along x."""
    columns = table.columns if table is not None else [""]
    return columns[-1], columns[0]


def _get(table, row, column=""):
    return [] if table is None else table.get(row, column, "accuracy")


def compute_losses(table):
    """Computes the accuracy that each row loses with small batches.

    Returns:
        List of `(row, Difference)`, the smallest loss first.
    """
    large, small = get_ends(table)
    losses = [
        (row, subtract(_get(table, row, large), _get(table, row, small)))
        for row in table.rows
    ]
    known = [(row, loss) for row, loss in losses if loss is not None]
    return sorted(known, key=lambda item: item[1].mean)
