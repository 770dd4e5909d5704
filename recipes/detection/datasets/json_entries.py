"""A list of objects in a JSON file, read key by key, each value's type checked.

Whole columns at a time: COCO's training file has 860,000 annotations.
"""

import collections
import dataclasses
import math

import numpy as np

from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Entries:
    """The objects of a list.

    Attributes:
        path: Of the file.
        part: The name of the list in it.
        rows: The objects, dicts.
    """

    path: str
    part: str
    rows: list

    def values(self, key, *types, default=None, kind=None):
        """The values of a key; where it is missing or null, the default.

        Args:
            key: Of the objects.
            *types: Types that a value may have.
            default: Taken where there is no value; None for an error.
            kind: What a value must be, for the error message.

        Raises:
            RecipeError: if a value has none of the types, which names the
                first.
        """
        values = [row.get(key) for row in self.rows]
        if default is not None:
            values = [default if value is None else value for value in values]
        if not set(map(type, values)) <= set(types):
            names = " or ".join(each.__name__ for each in types)
            self.reject(
                [type(value) not in types for value in values],
                key,
                kind or f"of type {names}",
            )
        return values

    def integers(self, key):
        """The values of a key, int64. A whole float is one, as in Python.

        Raises:
            RecipeError: for another value, or one beyond 64 bits.
        """
        values = self._whole(key)
        try:
            return np.array(values, np.int64)
        except OverflowError:
            low, high = -(2**63), 2**63 - 1
            self.reject(
                [not low <= value <= high for value in values],
                key,
                "of type int and of 64 bits",
            )

    def ids(self):
        """The values of `id`, ints of any size, no two of them the same."""
        ids = self._whole("id")
        if len(set(ids)) < len(ids):
            (twice, _), *_ = collections.Counter(ids).most_common(1)
            raise RecipeError(
                f"{self.path}: the id {twice} is twice in {self.part!r}."
            )
        return ids

    def amounts(self, key):
        """The values of a key, float64, NaN where it is missing or null.

        Raises:
            RecipeError: for a value that is not finite, or is negative.
        """
        kind = "that is finite and at least 0"
        values = self.values(key, int, float, default=math.nan, kind=kind)
        amounts = floats(values)
        given = np.array([row.get(key) is not None for row in self.rows], bool)
        good = (amounts >= 0) & (amounts <= np.finfo(np.float32).max)
        self.reject(given & ~good, key, kind)
        return amounts

    def flags(self, key):
        """The values of a key, bool: 0, 1, false or true; false if missing.

        Raises:
            RecipeError: for another value.
        """
        kind = "of 0 or 1"
        values = self.values(key, int, bool, float, default=0, kind=kind)
        self.reject([value not in (0, 1) for value in values], key, kind)
        return np.array(values, bool)

    def reject(self, bad, key, kind):
        """Refuses the first object that is bad, if any.

        Args:
            bad: For each object, whether it is.
            key: Whose value it is bad for.
            kind: What the value must be, for the error message.

        Raises:
            RecipeError: which names the file, the object and its value.
        """
        if not np.any(bad):
            return
        i = int(np.argmax(bad))
        row = self.rows[i]
        which = f"entry {i} of {self.part!r}, counted from 0,"
        if key != "id" and "id" in row:
            which = f"the entry of {self.part!r} with the id {row['id']!r}"
        found = f"It is {row[key]!r}." if key in row else "It has none."
        raise RecipeError(
            f"{self.path}: {which} must have {key!r} {kind}. {found}"
        )

    def _whole(self, key):
        kind = "of type int"
        values = self.values(key, int, float, kind=kind)
        if float not in set(map(type, values)):
            return values
        self.reject(
            [type(v) is float and not v.is_integer() for v in values], key, kind
        )
        return list(map(int, values))


def floats(values):
    """Numbers as float64, infinite where an int is too large for it."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values])


def _float(value):
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def places(values, wanted):
    """Where each wanted value is among the values, int64; -1 where it is not.

    Args:
        values: int64 `(n,)`, no two the same, n at least 1.
        wanted: int64 `(m,)`.
    """
    order = np.argsort(values)
    found = np.searchsorted(values, wanted, sorter=order)
    found = order[np.minimum(found, len(values) - 1)]
    return np.where(values[found] == wanted, found, -1)
