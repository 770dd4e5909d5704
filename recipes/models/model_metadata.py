"""Additional metadata in .keras files.

A .keras file is a ZIP archive. Keras ignores additional entries in its
metadata.json. They are lost when a model is loaded and saved again.
"""

import json
import os
import shutil
import zipfile

METADATA = "metadata.json"


def add_metadata(path, metadata):
    """Adds metadata to a file.

    Args:
        path: Path of a `.keras` file.
        metadata: Dict that JSON can represent.
    """
    changed = path.with_name(f"{path.name}.changed")
    try:
        with (
            zipfile.ZipFile(path) as old,
            zipfile.ZipFile(changed, "w") as new,
        ):
            for member in old.infolist():
                with old.open(member) as file, _open(new, member) as copy:
                    if member.filename == METADATA:
                        content = {**json.load(file), **metadata}
                        copy.write(json.dumps(content).encode())
                    else:
                        shutil.copyfileobj(file, copy, 2**20)
        os.replace(changed, path)
    finally:
        changed.unlink(missing_ok=True)


def read_metadata(path):
    """Reads the metadata of a `.keras` file; an empty dict if there is none."""
    try:
        with zipfile.ZipFile(path) as file:
            metadata = json.loads(file.read(METADATA))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _open(archive, member):
    # The old entry has the old size.
    entry = zipfile.ZipInfo(member.filename, member.date_time)
    entry.compress_type = member.compress_type
    return archive.open(entry, "w", force_zip64=True)
