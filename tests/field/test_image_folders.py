"""Folders of images as users have them: read as Keras does, or named."""

import os
import pathlib
import re

import keras
import numpy as np
import PIL.Image
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import tensorflow as tf  # noqa: E402

from recipes.classification import datasets  # noqa: E402
from recipes.data import dataset_summary  # noqa: E402
from recipes.data import input_pipeline  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from tests.recipes.small_runs import TASK  # noqa: E402
from tests.recipes.small_runs import make_config  # noqa: E402

# What every program reads, and Keras.
PLAIN = (
    "train/b/2.jpg",
    "train/b/10.jpg",
    "train/b/UPPER.JPG",
    "train/b/mixed.Jpeg",
    "train/a/x.png",
    "train/a/x.PNG",
    "train/a/y.bmp",
    "train/a/z.gif",
    # Below the class, in folders whose order is not that of a walk.
    "train/a/part/1.jpg",
    "train/a/part/deep/er/1.jpg",
    "train/a/part-2/1.jpg",
    "train/a/folder.jpg/inside.jpg",
    "train/Z/two words é.jpeg",
    "validation/a/1.jpg",
    "validation/b/nested/1.png",
    "validation/Z/1.gif",
)
# What programs leave behind, and how often the line says so.
LEFT_BEHIND = {
    "2 folders (.ipynb_checkpoints/)": (
        "train/.ipynb_checkpoints/x-checkpoint.jpg",
        "validation/a/.ipynb_checkpoints/1-checkpoint.jpg",
    ),
    "1 folder (.thumbnails/)": ("train/.thumbnails/1.jpg",),
    "3 folders (__MACOSX/)": (
        "__MACOSX/train/a/._x.jpg",
        "train/__MACOSX/a/._x.jpg",
        "train/a/__MACOSX/._x.jpg",
    ),
    "2 files (._*)": ("train/b/._2.jpg", "validation/a/._1.jpg"),
    "3 files (.*)": ("train/.DS_Store", "train/b/.DS_Store", "train/b/.h.png"),
    "2 files (.db)": ("train/Thumbs.db", "train/b/Thumbs.db"),
    "1 file (.txt)": ("classes.txt",),
    "2 files (.svg)": ("train/a/1.svg", "train/a/2.SVG"),
    "1 file (.tiff)": ("validation/b/1.tiff",),
    "1 file (no ending)": ("train/b/jpg",),
    "2 images outside of the class folders (train/loose.jpg, "
    "validation/loose.PNG)": ("train/loose.jpg", "validation/loose.PNG"),
    "1 folder (test/)": ("test/a/1.jpg",),
}
ALL_LEFT_BEHIND = (
    "ignored: 12 files (.*, ._*, .db, .svg, .tiff, .txt, no ending), 7 folders "
    "(.ipynb_checkpoints/, .thumbnails/, __MACOSX/, test/), 2 images outside "
    "of the class folders (train/loose.jpg, validation/loose.PNG)"
)


def make(root, names):
    """Files of different images, whatever their ending says."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (9, 7, 3), np.uint8)
        with path.open("wb") as file:
            PIL.Image.fromarray(noise).save(file, "PNG")
    return root


def opened(root):
    return datasets.open_source(make_config(dataset=f"folder:{root}"))


def read(split):
    """Path, bytes and label of every example."""
    rows = []
    for i in range(split.num_examples):
        encoded, label = split.read(tf.constant(i, tf.int64))
        rows.append((split.name(i), encoded.numpy(), int(label)))
    return rows


def keras_rows(root):
    """The same by Keras, and the number of classes."""
    dataset = keras.utils.image_dataset_from_directory(
        root, shuffle=False, batch_size=None, image_size=(9, 7), verbose=False
    )
    labels = [int(label) for _, label in dataset]
    rows = [
        (path, pathlib.Path(path).read_bytes(), label)
        for path, label in zip(dataset.file_paths, labels, strict=True)
    ]
    return rows, len(dataset.class_names)


def notes_of(root):
    return "; ".join(opened(root).notes)


def test_folders_are_read_as_keras_reads_them(tmp_path):
    root = make(tmp_path, PLAIN)
    source = opened(root)
    for folder, split in (
        ("train", source.train),
        ("validation", source.evaluation),
    ):
        rows, num_classes = keras_rows(root / folder)
        assert read(split) == rows
        assert source.num_classes == num_classes
    assert not notes_of(root)


# https://github.com/pytorch/vision/issues/2831
# https://github.com/googlecolab/colabtools/issues/1824
# https://github.com/open-mmlab/mmpretrain/issues/507
def test_what_is_left_behind_is_not_trained_on_but_named(tmp_path):
    clean, messy = make(tmp_path / "clean", PLAIN), tmp_path / "messy"
    left_behind = [name for names in LEFT_BEHIND.values() for name in names]
    make(messy, (*PLAIN, *left_behind))
    source = opened(messy)
    for folder, split in (
        ("train", source.train),
        ("validation", source.evaluation),
    ):
        rows, num_classes = keras_rows(clean / folder)
        assert source.num_classes == num_classes == 3
        there = [
            name.replace(str(messy), str(clean)) for name, *_ in read(split)
        ]
        assert there == [name for name, *_ in rows]
        assert [row[1:] for row in read(split)] == [row[1:] for row in rows]
    assert notes_of(messy) == ALL_LEFT_BEHIND
    line = dataset_summary.describe_data(
        input_pipeline.make_data(
            make_config(dataset=f"folder:{messy}", global_batch_size=4), TASK
        )
    )
    assert line == (
        "13 training and 3 evaluation images, 3 classes (Z, a, b); "
        f"{ALL_LEFT_BEHIND}"
    )


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_each_kind_is_counted(tmp_path, kind):
    names = ("train/a/1.jpg", "train/b/1.jpg", "validation/a/1.jpg")
    make(tmp_path, (*names, "validation/b/1.jpg", *LEFT_BEHIND[kind]))
    assert opened(tmp_path).num_classes == 2
    assert opened(tmp_path).train.num_examples == 2
    assert opened(tmp_path).evaluation.num_examples == 2
    assert notes_of(tmp_path) == f"ignored: {kind}"


def test_classes_without_images(tmp_path):
    make(tmp_path, ("train/c/1.jpg", "train/a/1.jpg", "val/a/1.jpg"))
    (tmp_path / "val" / "c").mkdir()
    source = opened(tmp_path)
    assert source.class_names == ("a", "c")
    assert notes_of(tmp_path) == "val/ has no image of 1 of 2 classes: c"
    (tmp_path / "train" / "b\n").mkdir()
    make(tmp_path, ("train/b\n/notes.txt",))
    with pytest.raises(RecipeError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/train has no image of 1 of 3 classes: b\\n. Put images "
        "there or remove the folder."
    )


def test_hidden_folders_of_the_evaluation_are_no_unknown_classes(tmp_path):
    make(tmp_path, ("train/a/1.jpg", "val/a/1.jpg", "val/.cache/1.jpg"))
    assert opened(tmp_path).num_classes == 1
    make(tmp_path, ("val/dog/1.jpg",))
    with pytest.raises(RecipeError, match="labels that train/ does not: dog.$"):
        opened(tmp_path)


def test_links(tmp_path):
    root = make(
        tmp_path / "set",
        ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"),
    )
    make(tmp_path / "elsewhere", ("1.jpg", "2.jpg"))
    train = root / "train"
    (train / "c").symlink_to(tmp_path / "elsewhere")
    (root / "val" / "c").symlink_to(tmp_path / "elsewhere")
    (train / "a" / "0.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    # Neither is followed by Keras: it could be a circle.
    (train / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (train / "a" / "circle").symlink_to(train / "a")
    rows, num_classes = keras_rows(train)
    source = opened(root)
    assert (read(source.train), source.num_classes) == (rows, num_classes)
    assert len(rows) == 5
    assert notes_of(root) == (
        "ignored: 2 links to folders (train/a/circle, train/a/more)"
    )
    # Keras lists them and fails over them while it trains, or waits.
    (train / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (train / "b" / "itself.jpg").symlink_to("itself.jpg")
    (train / "itself").symlink_to("itself")
    os.mkfifo(train / "b" / "pipe.jpg")
    assert read(opened(root).train) == rows
    assert notes_of(root) == (
        "ignored: 3 broken links (train/itself, train/b/gone.jpg, "
        "train/b/itself.jpg), 2 links to folders (train/a/circle, "
        "train/a/more), 1 special file (train/b/pipe.jpg)"
    )


def test_a_name_that_is_not_utf_8(tmp_path):
    make(tmp_path, ("train/a/1.jpg", "val/a/1.jpg"))
    name = os.fsencode(tmp_path / "train" / "a") + b"/caf\xe9.jpg"
    with open(name, "wb") as file:
        file.write(b"an image")
    split = opened(tmp_path).train
    assert split.num_examples == 2
    assert split.read(tf.constant(1, tf.int64))[0].numpy() == b"an image"
    assert split.name(1).endswith("/caf\ufffd.jpg")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path, ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"))
    scandir = os.scandir

    def refused(path):
        if os.fspath(path).endswith("/train/b"):
            # The mode of a folder does not keep root out.
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(RecipeError, match="train/b cannot be listed"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train/1.jpg", "validation/a/1.jpg"),
        ("train/.a/1.jpg", "validation/a/1.jpg"),
        ("train/a/1.svg", "validation/a/1.jpg"),
        ("train/a/1.jpg", "validation/a/._1.jpg"),
        ("train/a/1.jpg", "__MACOSX/validation/a/1.jpg"),
    ],
)
def test_a_split_of_nothing_is_refused(tmp_path, names):
    make(tmp_path, names)
    with pytest.raises(RecipeError, match="hold") as caught:
        opened(tmp_path)
    assert not re.search(r"\n", str(caught.value))


def test_its_batches_train(tmp_path):
    make(tmp_path, (*PLAIN, *LEFT_BEHIND["2 files (._*)"]))
    made = input_pipeline.make_data(
        make_config(
            dataset=f"folder:{tmp_path}", global_batch_size=13, image_size=8
        ),
        TASK,
    )
    assert made.num_train == 13 and made.num_eval == 3
    images, labels, weights = next(iter(made.train(0)))
    assert images.shape == (13, 8, 8, 3)
    # Z, a, b: capitals come first.
    assert np.bincount(labels).tolist() == [1, 8, 4]
    assert weights.numpy().all()
