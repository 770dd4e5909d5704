"""Exports replace an earlier one completely, or not at all."""

import importlib.util

import numpy as np
import pytest

from recipes.errors import RecipeError
from recipes.export import formats
from tests.recipes.export.small_exports import IMAGE
from tests.recipes.export.small_exports import export_model
from tests.recipes.export.small_exports import make_images
from tests.recipes.export.small_exports import make_network
from tests.recipes.export.small_exports import run_export


def test_failed_check_keeps_the_earlier_export(tmp_path, monkeypatch):
    name = "saved_model"
    export_model(make_network(), name, tmp_path)
    before = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    chosen = formats.FORMATS[name]

    def wrong(path):
        run = chosen.load(path)
        return lambda x: {k: v * 1.001 for k, v in run(x).items()}

    broken = formats.Format(chosen.file, chosen.packages, chosen.write, wrong)
    monkeypatch.setitem(formats.FORMATS, name, broken)
    with pytest.raises(RecipeError, match="exported logits differ.*1.0e-03"):
        export_model(make_network(["rbn"]), name, tmp_path)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_new_export_replaces_the_earlier_one(tmp_path):
    export_model(make_network(["bn"]), "saved_model", tmp_path)
    model = make_network(["rbn"])
    export_model(model, "saved_model", tmp_path)
    x = make_images(2, *IMAGE)
    np.testing.assert_allclose(
        run_export("saved_model", tmp_path, x), model(x), rtol=1e-5, atol=1e-6
    )
    assert len(list((tmp_path / "export").iterdir())) == 1


def test_killed_export_is_cleaned_up_or_restored(tmp_path):
    export_model(make_network(), "saved_model", tmp_path)
    folder = tmp_path / "export"
    # Between the two renames of a replacement.
    (folder / "saved_model").rename(folder / ".saved_model.former")
    (folder / ".saved_model.unfinished-killed").mkdir()
    weights = make_network()
    weights.layers[1].kernel.assign(np.full((3, 3, 3, 4), np.nan))
    with pytest.raises(RecipeError, match="has invalid values in kernel"):
        export_model(weights, "saved_model", tmp_path)
    assert [p.name for p in folder.iterdir()] == ["saved_model"]
    export_model(make_network(), "saved_model", tmp_path)
    assert [p.name for p in folder.iterdir()] == ["saved_model"]


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "export").write_text("a file")
    with pytest.raises(RecipeError, match="export/saved_model cannot be wri"):
        export_model(make_network(), "saved_model", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx", "pip install tf2onnx onnx onnxruntime"),
        ("litert", "pip install ai-edge-litert"),
    ],
)
def test_missing_package_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=message):
        export_model(make_network(), name, tmp_path)
    assert not (tmp_path / "export").exists()
    export_model(make_network(), "saved_model", tmp_path)


def test_unsupported_network_is_named(tmp_path, monkeypatch):
    def refuse(network, path):
        raise ValueError("no such operation:\n  Foo")

    broken = formats.Format("", {}, refuse, None)
    monkeypatch.setitem(formats.FORMATS, "onnx", broken)
    message = "export_format=onnx does not support network: .* operation: Foo"
    with pytest.raises(RecipeError, match=message):
        export_model(make_network(), "onnx", tmp_path)
    assert not (tmp_path / "export").exists()
