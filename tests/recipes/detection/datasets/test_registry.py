"""Tests of opening datasets by name."""

import types

import pytest

from recipes.detection.datasets import annotations
from recipes.detection.datasets import registry
from recipes.errors import RecipeError
from tests.recipes.detection import boxes_folder


def config(dataset, data_dir=None):
    return types.SimpleNamespace(
        dataset=dataset, data_dir=data_dir, on_bad_image="fail"
    )


def test_folder_is_opened_by_path(tmp_path, monkeypatch):
    boxes_folder.write(tmp_path / "boxes")
    monkeypatch.setenv("HOME", str(tmp_path))
    source = registry.open_source(config("folder:~/boxes"))
    assert isinstance(source, annotations.Source)
    assert isinstance(source.train, annotations.Split)
    assert isinstance(source.train.annotations()[0], annotations.Annotation)
    assert source.num_channels == 3


def test_unknown_name_error_lists_the_datasets(tmp_path):
    with pytest.raises(RecipeError) as caught:
        registry.open_source(config("tree", str(tmp_path)))
    message = str(caught.value)
    assert "unknown dataset 'tree'. Did you mean trees" in message
    assert "Available are trees, folder:PATH and " in message
    assert "coco/2017" in message and "digits" not in message
    with pytest.raises(RecipeError, match="--dataset=coco/2018: .*2018"):
        registry.open_source(config("coco/2018", str(tmp_path)))
