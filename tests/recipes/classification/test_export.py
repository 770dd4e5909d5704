"""Exports of classifiers: metadata, precision and pretrained models."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from recipes.classification import export
from recipes.export import formats
from recipes.models import precision
from recipes.models import pretrained
from tests.recipes.export.small_exports import IMAGE
from tests.recipes.export.small_exports import export_model
from tests.recipes.export.small_exports import make_network
from tests.recipes.export.small_exports import require_format

each_format = pytest.mark.parametrize(
    "name", [require_format(name) for name in formats.FORMATS]
)


@each_format
def test_export_json_describes_the_export(name, tmp_path):
    facts = export_model(make_network(), name, tmp_path)
    folder = tmp_path / "export" / name
    assert facts.pop("path") == str(folder)
    assert json.loads((folder / "export.json").read_text()) == facts
    assert [p.name for p in (tmp_path / "export").iterdir()] == [name]
    assert (folder / facts["file"]).exists()
    expected = {
        "format": name,
        "input": "images",
        "input_shape": [None, 8, 8, 3],
        "output": "logits",
        "output_shape": [None, 10],
        "dtype": "float32",
        "num_classes": 10,
        "preprocessing": "RGB in [-1, 1], channels last",
        "trained_in": ["float32"],
        "difference_to_trained": 0.0,
    }
    assert {key: facts[key] for key in expected} == expected
    line = export.describe_export({**facts, "path": "P"})
    assert line.startswith("export: P, 0.")
    assert "mixed" not in line


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_models_are_exported_in_float32(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = make_network(["frn", "rbn", "bn"])
    new = precision.rebuild_in_float32(model)
    assert keras.config.dtype_policy().name == policy
    assert {layer.compute_dtype for layer in new.layers} == {"float32"}
    assert len(new.weights) == len(model.weights)
    for ours, theirs in zip(new.weights, model.weights, strict=True):
        assert ours is not theirs
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    graph = tf.function(new).get_concrete_function(tf.zeros((1, *IMAGE)))
    dtypes = {
        output.dtype.name
        for operation in graph.graph.get_operations()
        for output in operation.outputs
    }
    assert not {"bfloat16", "float16"} & dtypes
    facts = export_model(model, "saved_model", tmp_path)
    assert facts["trained_in"] == [policy]
    assert 1e-5 < facts["difference_to_trained"] < 0.1
    assert f"from the logits in {policy}" in export.describe_export(facts)


def test_pretrained_model_is_exported(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = keras.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ],
        name="backbone",
    )
    inputs = keras.Input(IMAGE)
    keras.Model(inputs, backbone(inputs)).save(tmp_path / "file.keras")
    model, _ = pretrained.load_classifier(
        tmp_path / "file.keras",
        keras_norm.get("frn"),
        IMAGE,
        5,
        "mixed_bfloat16",
    )
    facts = export_model(model, "saved_model", tmp_path)
    assert facts["output_shape"] == [None, 5]
