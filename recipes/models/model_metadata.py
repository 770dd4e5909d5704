"""Facts in the metadata.json of a .keras file.

A .keras file is a ZIP archive. Keras reads the model from its config.json and
its weights, and leaves other entries of metadata.json alone; a model that is
loaded and saved again has them no more.
"""

import json
import os
import shutil
import zipfile

METADATA = "metadata.json"


def add_metadata(path, facts):
    """Adds facts to the metadata of a file.

    Args:
        path: Path of a `.keras` file.
        facts: Dict that JSON can hold.
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
                        metadata = {**json.load(file), **facts}
                        copy.write(json.dumps(metadata).encode())
                    else:
                        shutil.copyfileobj(file, copy, 2**20)
        os.replace(changed, path)
    finally:
        changed.unlink(missing_ok=True)


def read_metadata(path):
    """The metadata of a `.keras` file, a dict; empty where there is none."""
    try:
        with zipfile.ZipFile(path) as file:
            metadata = json.loads(file.read(METADATA))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _open(archive, member):
    # A new entry, as that of the old one holds its old size.
    entry = zipfile.ZipInfo(member.filename, member.date_time)
    entry.compress_type = member.compress_type
    return archive.open(entry, "w", force_zip64=True)
