"""Tests of atomic writes of files and folders."""

import pytest

from recipes import atomic_io


class Killed(Exception):
    pass


@pytest.mark.parametrize("concurrent", [False, True])
def test_failed_write_keeps_the_former_file(tmp_path, concurrent):
    path = tmp_path / "file"
    path.write_text("former")
    with pytest.raises(Killed), atomic_io.atomic_file(path, concurrent) as new:
        new.write_text("half")
        raise Killed
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_concurrent_writes_of_a_file_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with (
        atomic_io.atomic_file(path, concurrent=True) as first,
        atomic_io.atomic_file(path, concurrent=True) as second,
    ):
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # It was completed last.
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_former_folder(tmp_path):
    path = tmp_path / "folder"
    with atomic_io.atomic_dir(path) as new:
        (new / "file").write_text("former")
    with pytest.raises(Killed), atomic_io.atomic_dir(path) as new:
        (new / "file").write_text("half")
        raise Killed
    assert (path / "file").read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_no_parent_folders(tmp_path):
    path = tmp_path / "parent" / "child" / "folder"
    with pytest.raises(Killed), atomic_io.atomic_dir(path):
        raise Killed
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "parent").mkdir()
    with pytest.raises(Killed), atomic_io.atomic_dir(path):
        raise Killed
    assert [each.name for each in tmp_path.rglob("*")] == ["parent"]


def test_folder_is_replaced_or_kept(tmp_path):
    path = tmp_path / "folder"
    for text, replace, expected in (
        ("1", True, "1"),
        ("2", True, "2"),
        ("3", False, "2"),
    ):
        with atomic_io.atomic_dir(path, replace) as new:
            (new / "file").write_text(text)
        assert (path / "file").read_text() == expected
    assert list(tmp_path.iterdir()) == [path]
