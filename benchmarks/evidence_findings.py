"""What the runs of the evidence say about what the papers claim."""

import dataclasses
import math

from recipes.experiments import aggregate as groups_lib

ACCURACY = "eval/accuracy"
# A difference counts where it is larger than that many standard deviations of
# a difference between two means.
CLEAR = 2


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two means over seeds, in the unit of the values.

    Attributes:
        mean: Their difference.
        deviation: The standard deviation of that difference, out of the sample
            standard deviations of both; None where one has a single seed.
    """

    mean: float
    deviation: float | None

    @property
    def is_clear(self):
        """Whether it is larger than what seeds alone would make."""
        if self.deviation is None:
            return False
        return abs(self.mean) > CLEAR * self.deviation

    def text(self, digits=2, factor=100):
        """Such as `+0.31 ± 0.12`."""
        mean = f"{self.mean * factor:+.{digits}f}"
        if self.deviation is None:
            return f"{mean} (one seed)"
        return f"{mean} ± {self.deviation * factor:.{digits}f}"


def difference(first, second, value=ACCURACY):
    """`first - second` of two `groups.Group`; None if one has no value."""
    spreads = [
        None if group is None else group.spread(value)
        for group in (first, second)
    ]
    return between(*spreads)


def between(a, b):
    """`a - b` of the means of two `groups.Spread`; None if one is None."""
    if a is None or b is None:
        return None
    deviation = None
    if a.deviation is not None and b.deviation is not None:
        deviation = math.sqrt(a.deviation**2 / a.num + b.deviation**2 / b.num)
    return Difference(a.mean - b.mean, deviation)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says, and what came out here.

    Attributes:
        says: The claim.
        found: The `Difference` that speaks of it, in accuracy; None where it
            was not measured. Positive is what the claim says.
        where: What was compared.
    """

    says: str
    found: Difference | None
    where: str

    @property
    def verdict(self):
        """`holds`, `not decided`, `does not hold`, `not run`."""
        if self.found is None:
            return "not run"
        if not self.found.is_clear:
            return "not decided"
        return "holds" if self.found.mean > 0 else "does not hold"

    @property
    def text(self):
        """The difference in points of top-1."""
        return "" if self.found is None else self.found.text()


def claims(tables, long_rows=()):
    """The claims of both papers, those that do not hold first.

    Args:
        tables: Dict from the name of a grid to its `sweep_table.Table`.
        long_rows: Rows of benchmarks/long_training.py.
    """
    found = [*_of_frn(tables), *_of_rbn(tables), *_of_long(long_rows)]
    order = ["does not hold", "not decided", "holds", "not run"]
    return sorted(found, key=lambda claim: order.index(claim.verdict))


def _of_frn(tables):
    batch = _cells(tables, "batch")
    large, small = _ends(tables, "batch")
    frn, relu = "--norm=frn", "--norm=frn --activation=relu"
    yield Claim(
        "FRN with TLU is better than BN where batches are large",
        difference(batch(frn, large), batch("--norm=bn", large)),
        f"`frn` less `bn`, {large} images a replica",
    )
    yield Claim(
        "FRN with TLU is better than BN where batches are small",
        difference(batch(frn, small), batch("--norm=bn", small)),
        f"`frn` less `bn`, {small} images a replica",
    )
    yield Claim(
        "FRN with TLU is better than GN where batches are small",
        difference(batch(frn, small), batch("--norm=gn", small)),
        f"`frn` less `gn`, {small} images a replica",
    )
    yield Claim(
        "BN loses accuracy as batches get small",
        difference(batch("--norm=bn", large), batch("--norm=bn", small)),
        f"`bn`, {large} less {small} images a replica",
    )
    yield Claim(
        "FRN loses less than BN does",
        _less(
            difference(batch("--norm=bn", large), batch("--norm=bn", small)),
            difference(batch(frn, large), batch(frn, small)),
        ),
        f"what `bn` loses less what `frn` loses, {large} to {small} images",
    )
    yield Claim(
        "TLU is better than ReLU behind FRN",
        difference(batch(frn, large), batch(relu, large)),
        f"`frn` less `frn --activation=relu`, {large} images a replica",
    )
    epsilon = _cells(tables, "epsilon")
    fixed = (
        '--norm=frn --norm_kwargs=\'{"learned_epsilon_initializer": "zeros"}\''
    )
    yield Claim(
        "FRN needs a learned epsilon on 1x1 maps and in dense layers",
        difference(epsilon(frn), epsilon(fixed)),
        "`frn` less `frn` whose epsilon stays 1e-6, narrow VGG-A",
    )


def _of_rbn(tables):
    batch = _cells(tables, "batch")
    _, small = _ends(tables, "batch")
    for name, where in (("curves", "Fashion-MNIST"), ("trees", "tree patches")):
        cells = _cells(tables, name)
        yield Claim(
            "RBN is better than BN",
            difference(cells("--norm=rbn"), cells("--norm=bn")),
            f"`rbn` less `bn`, {where}",
        )
    yield Claim(
        "RBN is better than BN where batches are small",
        difference(batch("--norm=rbn", small), batch("--norm=bn", small)),
        f"`rbn` less `bn`, {small} images a replica",
    )


def _of_long(rows):
    """The same claims, after longer training of a deeper network."""
    accuracies = {
        (row["norm"], row["batch_size"]): groups_lib.spread(
            row["accuracies"][-1]
        )
        for row in rows
    }
    if not accuracies:
        return
    sizes = [size for _, size in accuracies]
    large, small = max(sizes), min(sizes)

    def compare(first, second):
        return between(accuracies.get(first), accuracies.get(second))

    longer = "longer training"
    for says, norm, size in (
        (
            "FRN with TLU is better than BN where batches are large",
            "frn",
            large,
        ),
        (
            "FRN with TLU is better than BN where batches are small",
            "frn",
            small,
        ),
        ("RBN is better than BN", "rbn", large),
        ("RBN is better than BN where batches are small", "rbn", small),
    ):
        found = compare((norm, size), ("bn", size))
        where = f"`{norm}` less `bn`, batch {size}, {longer}"
        yield Claim(says, found, where)
    lost = {
        norm: compare((norm, large), (norm, small)) for norm in ("bn", "frn")
    }
    yield Claim(
        "BN loses accuracy as batches get small",
        lost["bn"],
        f"`bn`, batch {large} less batch {small}, {longer}",
    )
    yield Claim(
        "FRN loses less than BN does",
        _less(lost["bn"], lost["frn"]),
        f"what `bn` loses less what `frn` loses, {large} to {small}, {longer}",
    )


def _cells(tables, name):
    """`f(row, column=None)` gives a group of that table, or None."""
    cells = tables[name].cells if name in tables else {}
    return lambda row, column=None: cells.get((row, column))


def _ends(tables, name):
    """The largest and the smallest value along x."""
    columns = tables[name].columns if name in tables else [None]
    return columns[-1], columns[0]


def _less(first, second):
    if first is None or second is None:
        return None
    deviation = None
    if first.deviation is not None and second.deviation is not None:
        deviation = math.hypot(first.deviation, second.deviation)
    return Difference(first.mean - second.mean, deviation)


def losses_by_batch(table):
    """What each row loses from the largest batch to the smallest.

    Returns:
        List of `(row, Difference)`, the smallest loss first.
    """
    large, small = table.columns[-1], table.columns[0]
    found = [
        (
            row,
            difference(
                table.cells.get((row, large)), table.cells.get((row, small))
            ),
        )
        for row in table.rows
    ]
    known = [(row, lost) for row, lost in found if lost is not None]
    return sorted(known, key=lambda item: item[1].mean)
