"""Checks a `.keras` zip archive before its members are unpacked."""

import json
import stat

from keras_norm.errors import ConversionError

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
ASSETS = "assets/"
MAX_MEMBERS = 10_000
# Weights hardly compress, unless most of them are zero. Sizes below the floor
# are harmless.
MAX_EXPANSION = 20
FLOOR = 2**26
MAX_TEXT = {CONFIG: 2**24, METADATA: 2**20}
# Lists and dicts take much more memory than their two characters.
MAX_CONTAINERS = 10**6
TRUST = "if you trust the file, allow it with unsafe=True (--unsafe)"


def check_archive(archive, size, name):
    """Raises an error for an archive that Keras cannot have written.

    Args:
        archive: `zipfile.ZipFile`.
        size: Size of the file in bytes.
        name: Name of the file in errors.

    Raises:
        ConversionError: for paths outside the archive, duplicate names, links,
            encryption, and implausible compression ratios.
    """
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(names) > MAX_MEMBERS:
        raise ConversionError(
            f"{name} is refused: it has {len(names):,} members, more than "
            f"{MAX_MEMBERS:,}"
        )
    num_duplicates = len(names) - len(set(names))
    if num_duplicates:
        raise ConversionError(
            f"{name} is damaged: {num_duplicates:,} of its members have the "
            "name of another member"
        )
    for info in infos:
        _check_member(info, name)
    stored = min(size, sum(info.compress_size for info in infos))
    total = sum(info.file_size for info in infos)
    if total > max(FLOOR, MAX_EXPANSION * stored):
        raise _expands(name, "the archive", total, stored)


def read_json(archive, member, name):
    """Parses a JSON member; returns `{}` if it does not exist.

    Raises:
        ConversionError: if it is too long, or is not a dict.
        ValueError: if it is not JSON.
    """
    if member not in archive.namelist():
        return {}
    size = archive.getinfo(member).file_size
    if size > MAX_TEXT[member]:
        raise ConversionError(
            f"{name} is refused: its {member} has {size:,} bytes, more than "
            f"{MAX_TEXT[member]:,}; {TRUST}"
        )
    return parse_json(archive.read(member), member, name)


def parse_json(text, what, name):
    """Parses a dict from JSON; raises an error for any other value.

    Args:
        text: String or bytes.
        what: Name of the text in errors.
        name: Name of the file in errors.
    """
    marks = ("{", "[") if isinstance(text, str) else (b"{", b"[")
    if sum(text.count(mark) for mark in marks) > MAX_CONTAINERS:
        raise ConversionError(
            f"{name} is refused: its {what} has more than {MAX_CONTAINERS:,} "
            f"lists and dicts; {TRUST}"
        )
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ConversionError(
            f"{name} is damaged: its {what} should be a dict. "
            f"Received: {str(value)[:80]}"
        )
    return value


def keras_members(archive):
    """Returns the names of the members that Keras reads."""
    return [
        member
        for member in archive.namelist()
        if member in (CONFIG, METADATA, WEIGHTS) or member.startswith(ASSETS)
    ]


def _check_member(info, name):
    member = f"member {info.filename[:80]!r}"
    folders = info.filename.replace("\\", "/").split("/")
    if ".." in folders or not folders[0] or ":" in folders[0]:
        raise ConversionError(
            f"{name} is damaged: the path of its {member} leads outside the "
            "archive"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ConversionError(f"{name} is damaged: its {member} is a link")
    if info.flag_bits & 1:
        raise ConversionError(
            f"{name} is encrypted: save it again without a password"
        )
    if info.file_size > max(FLOOR, MAX_EXPANSION * info.compress_size):
        raise _expands(name, member, info.file_size, info.compress_size)


def _expands(name, what, size, stored):
    return ConversionError(
        f"{name} is refused: {what} would expand from {stored:,} bytes to "
        f"{size:,}, as a decompression bomb does; {TRUST}"
    )
