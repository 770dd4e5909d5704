"""Files and folders that are not read, for a line that names it."""

import collections
import os

# Kinds and names that a line lists.
NUM_LISTED = 20
NUM_NAMES = 3


def is_hidden(name):
    """Whether a file or folder of that name is no part of a dataset."""
    return name.startswith(".") or name == "__MACOSX"


def is_folder(entry):
    """Whether an `os.DirEntry` is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link that leads to itself.


def is_file(entry):
    """Whether an `os.DirEntry` is a file that can be read to its end."""
    try:
        return entry.is_file()
    except OSError:
        return False


def printable(path):
    """A path as text in a line, whatever bytes its name has."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


class IgnoredFiles:
    """The files and folders that are not read.

    Args:
        root: Path of the folder that names are shortened by.
    """

    def __init__(self, root):
        self.root = root
        self.files = collections.Counter()
        self.folders = collections.Counter()
        self.others = collections.defaultdict(list)

    def add(self, entry, kind=None):
        """Counts what is not read.

        Args:
            entry: An `os.DirEntry`.
            kind: What it is, in the plural; None for a plain file or folder.
        """
        if kind is None and not is_folder(entry) and not is_file(entry):
            kind = "broken links" if entry.is_symlink() else "special files"
        if kind:
            name = os.path.relpath(entry.path, self.root)
            self.others[kind].append(printable(name))
        elif is_folder(entry):
            self.folders[f"{printable(entry.name)}/"] += 1
        else:
            self.files[_ending(entry.name)] += 1

    def describe(self):
        """What is ignored, or nothing where nothing is."""
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
    "images outside of the class folders": "image outside of the class folders",
}


def format_count(number, name):
    """A number of things, in words: `1 file`, `2,000 files`."""
    return f"{number:,} {name}{'s' * (number != 1)}"


def join_names(names, limit):
    """Up to so many names, for a sentence."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" * (more > 0))


def _ending(name):
    if name.startswith("."):
        return "._*" if name.startswith("._") else ".*"
    return printable(os.path.splitext(name)[1].lower()) or "no ending"
