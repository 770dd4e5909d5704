"""Counts the files and folders of a dataset that are ignored."""

import collections
import os

from keras_norm.errors import printable

# Number of extensions and names in a description.
NUM_LISTED = 20
NUM_NAMES = 3


def is_hidden(name):
    """Returns True for names of files and folders left by other programs."""
    return name.startswith(".") or name == "__MACOSX"


def is_folder(entry):
    """Returns True if an `os.DirEntry` is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link to itself.


def is_file(entry):
    """Returns True if an `os.DirEntry` is a regular file or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


class IgnoredFiles:
    """Counter of ignored files and folders.

    Args:
        root: Path of the folder that names are relative to.
    """

    def __init__(self, root):
        self.root = root
        self.files = collections.Counter()
        self.folders = collections.Counter()
        self.others = collections.defaultdict(list)

    def add(self, entry, kind=None):
        """Counts an ignored file or folder.

        Args:
            entry: An `os.DirEntry`.
            kind: Plural noun of `SINGULAR`, or None for a file or folder.
        """
        if kind is None and not is_folder(entry) and not is_file(entry):
            kind = "broken links" if entry.is_symlink() else "special files"
        if kind:
            name = os.path.relpath(entry.path, self.root)
            self.others[kind].append(printable(name))
        elif is_folder(entry):
            self.folders[f"{printable(entry.name)}/"] += 1
        else:
            self.files[_extension(entry.name)] += 1

    def describe(self):
        """Describes the ignored files; an empty string if there are none."""
        parts = []
        counters = (("file", self.files), ("folder", self.folders))
        for name, counts in counters:
            if counts:
                number = sum(counts.values())
                kinds = join_names(sorted(counts), NUM_LISTED)
                parts.append(f"{format_count(number, name)} ({kinds})")
        for kind, names in self.others.items():
            words = SINGULAR[kind] if len(names) == 1 else kind
            parts.append(
                f"{len(names):,} {words} ({join_names(names, NUM_NAMES)})"
            )
        return f"ignored: {', '.join(parts)}" if parts else ""


SINGULAR = {
    "broken links": "broken link",
    "special files": "special file",
    "links to folders": "link to a folder",
    "images outside the class folders": "image outside the class folders",
}


def format_count(number, name):
    """Returns a number with its noun: `1 file`, `2,000 files`."""
    return f"{number:,} {name}{'s' * (number != 1)}"


def join_names(names, limit):
    """Joins up to `limit` names, and the number of the others."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" * (more > 0))


def _extension(name):
    if name.startswith("."):
        return "._*" if name.startswith("._") else ".*"
    return printable(os.path.splitext(name)[1].lower()) or "no extension"
