"""Tests of the dataset `trees`."""

import subprocess
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from recipes.data import deepforest_photos
from recipes.detection.datasets import trees
from recipes.errors import RecipeError
from tests.recipes.detection import deepforest_wheel


@pytest.fixture(scope="module")
def wheel():
    return deepforest_wheel.wheel()


@pytest.fixture(scope="module")
def data_dir(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    (folder / wheel.name).symlink_to(wheel)
    return folder


def test_tiles_keep_boxes_with_half_of_their_area_inside():
    generator = np.random.default_rng(0)
    photo = generator.integers(0, 256, (2 * 128 + 5, 3 * 128 + 90, 3), np.uint8)
    boxes = [
        [10, 20, 40, 60],
        [100, 0, 156, 30],  # Half in each of two tiles.
        [120, 50, 180, 70],
        [200, 120, 210, 131],
        [300, 240, 330, 261],
        [390, 10, 440, 60],  # Outside all tiles.
        [5, 5, 5, 9],
    ]
    found = list(trees.split_into_tiles(photo, boxes))
    places = [(top, left) for top, left, _, _ in found]
    assert places == [(0, 0), (0, 128), (0, 256), (128, 0), (128, 128)] + [
        (128, 256)
    ]
    expected = {
        (0, 0): [[10, 20, 40, 60], [100, 0, 128, 30]],
        (0, 128): [[0, 0, 28, 30], [0, 50, 52, 70], [72, 120, 82, 128]],
        (128, 256): [[44, 112, 74, 128]],
    }
    for top, left, pixels, inside in found:
        np.testing.assert_array_equal(
            pixels, photo[top : top + 128, left : left + 128]
        )
        wanted = expected.get((top, left), [])
        np.testing.assert_array_equal(inside, np.reshape(wanted, (-1, 4)))


def test_tiles_match_the_photos(wheel, data_dir, capsys):
    source = trees.open_trees(data_dir)
    output = capsys.readouterr().out
    assert output.startswith("downloading deepforest's photos of trees")
    assert (source.class_names, source.category_ids) == (("tree",), (1,))
    assert source.train.num_examples == 19 * 17
    assert source.evaluation.num_examples == 8 * 9 + 2 * 3 * 3
    counts = {}
    for kind, split in (
        ("train", source.train),
        ("val", source.evaluation),
    ):
        found = [len(a.boxes) for a in split.annotations()]
        counts[kind] = sum(found)
        assert 0 in found
        line = (
            f"{kind}: {len(found)} tiles of 128x128 pixels, "
            f"{np.count_nonzero(found)} of them with {sum(found)} trees"
        )
        assert line in output
    # The other annotated boxes are cut by tile edges or lie at the border.
    assert 0.8 * 574 < counts["train"] < 574
    assert 0.8 * (279 + 61 + 37) < counts["val"] < 279 + 61 + 37
    with zipfile.ZipFile(wheel) as archive:
        photo, _ = deepforest_photos.read_photo(
            archive, trees.PHOTOS["train"][0]
        )
    index = 17 + 2
    example = source.train.read(tf.constant(index, tf.int64))
    np.testing.assert_array_equal(
        tf.io.decode_image(example["image"]), photo[128:256, 256:384]
    )

    trees.open_trees(data_dir)
    assert capsys.readouterr().out == ""


def test_failed_download_leaves_no_files(tmp_path, monkeypatch):
    (tmp_path / "deepforest-2.1.0-py3-none-any.whl").write_bytes(b"half of it")
    with pytest.raises(RecipeError, match="trees cannot be written to .*zip"):
        trees.open_trees(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".whl"]


def test_error_includes_the_message_of_pip(tmp_path, monkeypatch):
    def run(command, **options):
        assert command[-1] == "deepforest==2.1.0"
        return subprocess.CompletedProcess(
            command, 1, "", "WARNING: retrying\nERROR: No matching one\n"
        )

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        RecipeError, match=f"trees: ERROR: No matching one. .* to {tmp_path}"
    ):
        trees.open_trees(tmp_path)
    assert not list(tmp_path.iterdir())
