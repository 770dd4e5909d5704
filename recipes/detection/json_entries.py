"""A list of objects in a JSON file, read key by key, each value's type checked.

Whole columns at a time: COCO's training file has 860,000 annotations.
"""

import dataclasses

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

    def values(self, key, *types, default=None):
        """The values of a key; where it is missing or null, the default.

        Raises:
            RecipeError: if a value has none of the types, which names the
                first.
        """
        values = [row.get(key) for row in self.rows]
        if default is not None:
            values = [default if value is None else value for value in values]
        if not set(map(type, values)) <= set(types):
            first = next(
                i for i, v in enumerate(values) if type(v) not in types
            )
            self._reject_value(first, key, types)
        return values

    def integers(self, key):
        """The values of a key, int64."""
        return np.array(self.values(key, int), np.int64)

    def ids(self):
        """The values of `id`, int64, no two of them the same."""
        ids = self.integers("id")
        values, counts = np.unique(ids, return_counts=True)
        if len(values) < len(ids):
            raise RecipeError(
                f"{self.path}: the id {values[counts > 1][0]} is twice in "
                f"{self.part!r}."
            )
        return ids

    def _reject_value(self, i, key, types):
        row = self.rows[i]
        which = f"entry {i} of {self.part!r}, counted from 0,"
        if key != "id" and "id" in row:
            which = f"the entry of {self.part!r} with the id {row['id']!r}"
        found = f"It is {row[key]!r}." if key in row else "It has none."
        kinds = " or ".join(kind.__name__ for kind in types)
        raise RecipeError(
            f"{self.path}: {which} must have {key!r} of type {kinds}. {found}"
        )


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
