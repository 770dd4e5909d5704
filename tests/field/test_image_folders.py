"""Image folders of users are read as Keras reads them, or reported."""

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

# Files that Keras reads.
PLAIN = (
    "train/b/2.jpg",
    "train/b/10.jpg",
    "train/b/UPPER.JPG",
    "train/b/mixed.Jpeg",
    "train/a/x.png",
    "train/a/x.PNG",
    "train/a/y.bmp",
    "train/a/z.gif",
    # In subfolders of the class, which os.walk returns in another order.
    "train/a/part/1.jpg",
    "train/a/part/deep/er/1.jpg",
    "train/a/part-2/1.jpg",
    "train/a/folder.jpg/inside.jpg",
    "train/Z/two words é.jpeg",
    "validation/a/1.jpg",
    "validation/b/nested/1.png",
    "validation/Z/1.gif",
)
# Files of other programs, and how they are reported.
IGNORED_FILES = {
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
    "1 file (no extension)": ("train/b/jpg",),
    "2 images outside the class folders (train/loose.jpg, "
    "validation/loose.PNG)": ("train/loose.jpg", "validation/loose.PNG"),
    "1 folder (test/)": ("test/a/1.jpg",),
}
ALL_IGNORED = (
    "ignored: 12 files (.*, ._*, .db, .svg, .tiff, .txt, no extension), 7 "
    "folders (.ipynb_checkpoints/, .thumbnails/, __MACOSX/, test/), 2 "
    "images outside the class folders (train/loose.jpg, validation/loose.PNG)"
)


def write_images(root, names):
    """Writes different images, whatever their extensions are."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (9, 7, 3), np.uint8)
        with path.open("wb") as file:
            PIL.Image.fromarray(noise).save(file, "PNG")
    return root


def open_folder(root):
    return datasets.open_source(make_config(dataset=f"folder:{root}"))


def read_examples(split):
    """Returns path, bytes and label of every example."""
    rows = []
    for i in range(split.num_examples):
        encoded, label = split.read(tf.constant(i, tf.int64))
        rows.append((split.name(i), encoded.numpy(), int(label)))
    return rows


def read_with_keras(root):
    """Returns the same read by Keras, and the number of classes."""
    dataset = keras.utils.image_dataset_from_directory(
        root, shuffle=False, batch_size=None, image_size=(9, 7), verbose=False
    )
    labels = [int(label) for _, label in dataset]
    rows = [
        (path, pathlib.Path(path).read_bytes(), label)
        for path, label in zip(dataset.file_paths, labels, strict=True)
    ]
    return rows, len(dataset.class_names)


def read_notes(root):
    return "; ".join(open_folder(root).notes)


def test_folders_are_read_as_keras_reads_them(tmp_path):
    root = write_images(tmp_path, PLAIN)
    source = open_folder(root)
    for folder, split in (
        ("train", source.train),
        ("validation", source.evaluation),
    ):
        rows, num_classes = read_with_keras(root / folder)
        assert read_examples(split) == rows
        assert source.num_classes == num_classes
    assert not read_notes(root)


# https://github.com/pytorch/vision/issues/2831
# https://github.com/googlecolab/colabtools/issues/1824
# https://github.com/open-mmlab/mmpretrain/issues/507
def test_files_of_other_programs_are_ignored_and_reported(tmp_path):
    clean, messy = write_images(tmp_path / "clean", PLAIN), tmp_path / "messy"
    ignored = [name for names in IGNORED_FILES.values() for name in names]
    write_images(messy, (*PLAIN, *ignored))
    source = open_folder(messy)
    for folder, split in (
        ("train", source.train),
        ("validation", source.evaluation),
    ):
        rows, num_classes = read_with_keras(clean / folder)
        assert source.num_classes == num_classes == 3
        names = [
            name.replace(str(messy), str(clean))
            for name, *_ in read_examples(split)
        ]
        assert names == [name for name, *_ in rows]
        assert [row[1:] for row in read_examples(split)] == [
            row[1:] for row in rows
        ]
    assert read_notes(messy) == ALL_IGNORED
    line = dataset_summary.describe_data(
        input_pipeline.make_data(
            make_config(dataset=f"folder:{messy}", global_batch_size=4), TASK
        )
    )
    assert line == (
        "13 training and 3 evaluation images, 3 classes (Z, a, b); "
        f"{ALL_IGNORED}"
    )


@pytest.mark.parametrize("kind", IGNORED_FILES)
def test_each_kind_of_ignored_file_is_counted(tmp_path, kind):
    names = ("train/a/1.jpg", "train/b/1.jpg", "validation/a/1.jpg")
    write_images(tmp_path, (*names, "validation/b/1.jpg", *IGNORED_FILES[kind]))
    assert open_folder(tmp_path).num_classes == 2
    assert open_folder(tmp_path).train.num_examples == 2
    assert open_folder(tmp_path).evaluation.num_examples == 2
    assert read_notes(tmp_path) == f"ignored: {kind}"


def test_classes_without_images_are_reported(tmp_path):
    write_images(tmp_path, ("train/c/1.jpg", "train/a/1.jpg", "val/a/1.jpg"))
    (tmp_path / "val" / "c").mkdir()
    source = open_folder(tmp_path)
    assert source.class_names == ("a", "c")
    assert read_notes(tmp_path) == "val/ has no images of 1 of 2 classes: c"
    (tmp_path / "train" / "b\n").mkdir()
    write_images(tmp_path, ("train/b\n/notes.txt",))
    with pytest.raises(RecipeError) as caught:
        open_folder(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/train has no images of 1 of 3 classes: b\\n. Add images "
        "or remove the folders."
    )


def test_hidden_evaluation_folders_are_not_unknown_classes(tmp_path):
    write_images(tmp_path, ("train/a/1.jpg", "val/a/1.jpg", "val/.cache/1.jpg"))
    assert open_folder(tmp_path).num_classes == 1
    write_images(tmp_path, ("val/dog/1.jpg",))
    with pytest.raises(
        RecipeError, match="labels that train/ does not have: dog. "
    ):
        open_folder(tmp_path)


def test_links_are_followed_as_by_keras(tmp_path):
    root = write_images(
        tmp_path / "set",
        ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"),
    )
    write_images(tmp_path / "elsewhere", ("1.jpg", "2.jpg"))
    train = root / "train"
    (train / "c").symlink_to(tmp_path / "elsewhere")
    (root / "val" / "c").symlink_to(tmp_path / "elsewhere")
    (train / "a" / "0.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    # Keras follows neither: they could be a cycle.
    (train / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (train / "a" / "circle").symlink_to(train / "a")
    rows, num_classes = read_with_keras(train)
    source = open_folder(root)
    assert (read_examples(source.train), source.num_classes) == (
        rows,
        num_classes,
    )
    assert len(rows) == 5
    assert read_notes(root) == (
        "ignored: 2 links to folders (train/a/circle, train/a/more)"
    )
    # Keras lists these, and fails or blocks when it reads them.
    (train / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (train / "b" / "itself.jpg").symlink_to("itself.jpg")
    (train / "itself").symlink_to("itself")
    os.mkfifo(train / "b" / "pipe.jpg")
    assert read_examples(open_folder(root).train) == rows
    assert read_notes(root) == (
        "ignored: 3 broken links (train/itself, train/b/gone.jpg, "
        "train/b/itself.jpg), 2 links to folders (train/a/circle, "
        "train/a/more), 1 special file (train/b/pipe.jpg)"
    )


def test_file_name_that_is_not_utf_8(tmp_path):
    write_images(tmp_path, ("train/a/1.jpg", "val/a/1.jpg"))
    name = os.fsencode(tmp_path / "train" / "a") + b"/caf\xe9.jpg"
    with open(name, "wb") as file:
        file.write(b"an image")
    split = open_folder(tmp_path).train
    assert split.num_examples == 2
    assert split.read(tf.constant(1, tf.int64))[0].numpy() == b"an image"
    assert split.name(1).endswith("/caf\\udce9.jpg")


def test_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    write_images(tmp_path, ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"))
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("/train/b"):
            # The permissions of a folder do not apply to root.
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RecipeError, match="train/b cannot be listed"):
        open_folder(tmp_path)


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
def test_empty_split_raises_an_error(tmp_path, names):
    write_images(tmp_path, names)
    with pytest.raises(
        RecipeError, match="must have|have: a|has no images"
    ) as caught:
        open_folder(tmp_path)
    assert not re.search(r"\n", str(caught.value))


def test_batches_of_a_folder(tmp_path):
    write_images(tmp_path, (*PLAIN, *IGNORED_FILES["2 files (._*)"]))
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
