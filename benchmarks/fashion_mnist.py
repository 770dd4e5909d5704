"""Copies a local Fashion-MNIST to the folder of TFDS' manual downloads.

Needed only if TFDS cannot download the dataset. Debian's package
dataset-fashion-mnist has the same images in the same gzip streams, whose
headers lack the original name and time. This program restores the headers, so
that the checksums of TFDS' builder match:

  apt-get install dataset-fashion-mnist
  python benchmarks/fashion_mnist.py --data_dir=DIR
  python recipes/imagenet.py --dataset=fashion_mnist --data_dir=DIR
"""

import argparse
import gzip
import pathlib
import struct
import sys

# Modification times in the headers of the files as first published.
TIMES = {"train": 1504176606, "t10k": 1504176627}
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
HEADER = 10
HAS_NAME = 8


def with_original_header(stream, name):
    """Adds the published name and time to the header of a gzip stream."""
    if stream[:2] != b"\x1f\x8b" or stream[3] != 0:
        raise ValueError(
            f"{name}.gz is not a gzip stream with a minimal header"
        )
    time = struct.pack("<I", TIMES[name.split("-")[0]])
    start = stream[:3] + bytes([HAS_NAME]) + time + stream[8:HEADER]
    restored = start + name.encode() + b"\0" + stream[HEADER:]
    if gzip.decompress(restored) != gzip.decompress(stream):
        raise ValueError(f"{name}.gz does not decompress to the same bytes")
    return restored


def restore(source, data_dir):
    """Copies the files to the folder of TFDS' manual downloads.

    Args:
        source: Folder with the four files of Debian's package.
        data_dir: The data folder of TFDS.

    Returns:
        Path of the new folder.

    Raises:
        FileNotFoundError: if a file is missing.
    """
    source = pathlib.Path(source)
    missing = [name for name in FILES if not (source / f"{name}.gz").exists()]
    if missing:
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}")
    manual = pathlib.Path(data_dir) / "downloads" / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        stream = (source / f"{name}.gz").read_bytes()
        (manual / f"{name}.gz").write_bytes(with_original_header(stream, name))
    return manual


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--source",
        default="/usr/share/datasets/fashion-mnist",
        help="folder with train-images-idx3-ubyte.gz and the other three",
    )
    parser.add_argument("--data_dir", required=True, help="data folder of TFDS")
    options = parser.parse_args()
    try:
        manual = restore(options.source, options.data_dir)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{len(FILES)} files in {manual}")


if __name__ == "__main__":
    main()
