"""Exported files against the Keras model, and what a failure leaves."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from recipes.classification import export
from recipes.errors import RecipeError
from recipes.export import formats
from recipes.models import classifiers
from recipes.models import precision
from recipes.models import pretrained
from tests.recipes.small_runs import make_config

IMAGE = (8, 8, 3)


def _format(name):
    packages = formats.FORMATS[name].packages.items()
    missing = [p for m, p in packages if importlib.util.find_spec(m) is None]
    reason = f"not installed: {', '.join(missing)}"
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=reason))


FORMATS = [_format(name) for name in formats.FORMATS]
each_format = pytest.mark.parametrize("name", FORMATS)
onnx_only = pytest.mark.parametrize("name", [_format("onnx")])


def fill(model):
    """Gives every weight but kernels values that none starts with."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low, high = -0.3, 0.3
        if weight.name in ("mean_mix", "variance_mix"):
            low, high = 0.2, 0.8
        if weight.name in ("gamma", "scale_bias", "learned_epsilon") or (
            weight.name in ("moving_variance", "renorm_std")
        ):
            low, high = 0.5, 1.5
        if weight.name != "kernel":
            weight.assign(generator.uniform(low, high, weight.shape))
    return model


def network(norms=("frn",), shape=IMAGE):
    """Convolutions, each with a norm and its activation, and logits."""
    inputs = x = keras.Input(shape)
    for name in norms:
        norm = keras_norm.get(name)
        options = {"groups": 2} if name == "gn" else {}
        x = keras.layers.Conv2D(4, 3, padding="same")(x)
        x = norm.activation()(norm.layer(**options)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(10)(x)
    model = keras.Model(inputs, x, name="network")
    return fill(classifiers.with_float32_logits(model))


def write(model, name, folder):
    config = make_config(workdir=str(folder), export_format=name)
    return export.export_classifier(config, model, ["a", "b"])


def images(*shape):
    generator = np.random.default_rng(3)
    return generator.uniform(-1.0, 1.0, shape).astype("float32")


def run(name, folder, x):
    path = folder / "export" / name / formats.FORMATS[name].file
    return formats.FORMATS[name].load(str(path))(x)["logits"]


@each_format
def test_every_norm_gives_its_logits_at_any_size(name, tmp_path):
    model = network(keras_norm.names(), (None, None, 3))
    facts = write(model, name, tmp_path)
    assert facts["largest_difference"] < 1e-5
    assert facts["input_shape"] == [None, None, None, 3]
    for shape in [(4, 8, 8, 3), (2, 12, 9, 3)]:
        x = images(*shape)
        np.testing.assert_allclose(
            run(name, tmp_path, x), model(x), rtol=1e-4, atol=1e-5
        )


@pytest.mark.long
@each_format
@pytest.mark.parametrize("norm", keras_norm.names())
def test_every_norm_in_a_residual_network(norm, name, tmp_path):
    shape = (16, 16, 3)
    model = classifiers.make_classifier(
        "resnet8_cifar", keras_norm.get(norm), shape, 10
    )
    facts = write(fill(model), name, tmp_path)
    assert facts["largest_difference"] < 1e-5


@pytest.mark.long
@each_format
@pytest.mark.parametrize(
    "network_name",
    ["ResNet50V2", "MobileNetV2", "EfficientNetB0", "DenseNet121"],
)
def test_applications_with_frn(network_name, name, tmp_path):
    shape = (64, 64, 3)
    model = classifiers.make_classifier(
        network_name, keras_norm.get("frn"), shape, 10
    )
    facts = write(fill(model), name, tmp_path)
    assert facts["largest_difference"] <= facts["allowed_difference"]


@each_format
def test_the_facts_are_written_down(name, tmp_path):
    facts = write(network(), name, tmp_path)
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
def test_half_precision_is_gone_and_every_weight_the_same(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = network(["frn", "rbn", "bn"])
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
    facts = write(model, "saved_model", tmp_path)
    assert facts["trained_in"] == [policy]
    assert 1e-5 < facts["difference_to_trained"] < 0.1
    assert f"from the logits in {policy}" in export.describe_export(facts)


def test_half_precision_goes_from_nested_models_and_bare_operations():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inner_inputs = keras.Input((None, None, 4))
    inner = keras.Model(
        inner_inputs, keras_norm.FRN()(inner_inputs), name="bfloat16"
    )
    convolution = keras.layers.Conv2D(4, 3, padding="same")
    inputs = keras.Input((None, None, 4))
    x = inner(convolution(inputs)) + convolution(inputs)
    x = keras.ops.cast(x, "bfloat16") * 2.0
    x = keras.Sequential([keras_norm.TLU(), keras.layers.Flatten()])(x)
    model = fill(classifiers.with_float32_logits(keras.Model(inputs, x)))
    new = precision.rebuild_in_float32(model)
    assert new.get_layer("bfloat16").layers[1].compute_dtype == "float32"
    x = images(2, 3, 3, 4)
    expected = model(x).numpy()
    np.testing.assert_allclose(new(x), expected, atol=0.1)
    assert np.abs(new(x) - expected).max() > 0.0


def test_a_float32_network_comes_back_bit_for_bit():
    model = network(keras_norm.names())
    x = images(2, *IMAGE)
    np.testing.assert_array_equal(
        precision.rebuild_in_float32(model)(x), model(x)
    )


def test_a_network_from_a_file_is_exported(tmp_path):
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
    facts = write(model, "saved_model", tmp_path)
    assert facts["output_shape"] == [None, 5]


@pytest.mark.parametrize("name", [_format("litert")])
def test_a_network_of_two_replicas_is_exported(name, tmp_path):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = network(["rbn"])
    assert write(model, name, tmp_path)["largest_difference"] < 1e-5


# ONNX Runtime moves zeros that a pad writes into the max pool behind it.
@onnx_only
def test_zeros_before_a_max_pool_stay_zeros(name, tmp_path):
    inputs = keras.Input(IMAGE)
    below_zero = keras.initializers.Constant(-5.0)
    x = keras.layers.Conv2D(4, 3, bias_initializer=below_zero)(inputs)
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.MaxPooling2D(3, strides=2)(x)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 1)(x))
    facts = write(keras.Model(inputs, x), name, tmp_path)
    assert facts["largest_difference"] < 1e-5


# tf2onnx makes reshapes of their transposes, by shapes that it moved twice.
@onnx_only
@pytest.mark.parametrize("norm", ["frn", "gn", "rbn"])
def test_maps_of_one_position_keep_their_channels(norm, name, tmp_path):
    inputs = keras.Input((1, 1, 3))
    x = keras.layers.Conv2D(4, 1)(inputs)
    layer = keras_norm.get(norm).layer(
        **({"groups": 2} if norm == "gn" else {})
    )
    model = fill(keras.Model(inputs, keras.layers.Flatten()(layer(x))))
    facts = write(model, name, tmp_path)
    assert facts["largest_difference"] < 1e-5


# Keras' own export makes inputs of them.
@onnx_only
def test_constants_of_layers_are_in_the_file(name, tmp_path):
    inputs = keras.Input(IMAGE)
    normalization = keras.layers.Normalization(
        mean=[0.1, 0.2, 0.3], variance=[0.4, 0.5, 0.6]
    )
    model = keras.Model(inputs, keras.layers.Flatten()(normalization(inputs)))
    assert write(model, name, tmp_path)["largest_difference"] < 1e-5


def test_other_logits_leave_nothing_and_the_earlier_export(
    tmp_path, monkeypatch
):
    name = "saved_model"
    write(network(), name, tmp_path)
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
    with pytest.raises(RecipeError, match="other logits.*1.0e-03"):
        write(network(["rbn"]), name, tmp_path)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_a_new_export_replaces_the_earlier_one(tmp_path):
    write(network(["bn"]), "saved_model", tmp_path)
    model = network(["rbn"])
    write(model, "saved_model", tmp_path)
    x = images(2, *IMAGE)
    np.testing.assert_allclose(
        run("saved_model", tmp_path, x), model(x), rtol=1e-5, atol=1e-6
    )
    assert len(list((tmp_path / "export").iterdir())) == 1


def test_what_a_kill_left_is_cleared_or_brought_back(tmp_path):
    write(network(), "saved_model", tmp_path)
    folder = tmp_path / "export"
    # Between the two renames of a replacement.
    (folder / "saved_model").rename(folder / ".saved_model.former")
    (folder / ".saved_model.unfinished").mkdir()
    weights = network()
    weights.layers[1].kernel.assign(np.full((3, 3, 3, 4), np.nan))
    with pytest.raises(RecipeError, match="values of kernel that it cannot"):
        write(weights, "saved_model", tmp_path)
    assert [p.name for p in folder.iterdir()] == ["saved_model"]
    write(network(), "saved_model", tmp_path)
    assert [p.name for p in folder.iterdir()] == ["saved_model"]


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "export").write_text("a file")
    with pytest.raises(RecipeError, match="export/saved_model cannot be wri"):
        write(network(), "saved_model", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx", "pip install tf2onnx onnx onnxruntime"),
        ("litert", "pip install ai-edge-litert"),
    ],
)
def test_a_missing_package_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=message):
        write(network(), name, tmp_path)
    assert not (tmp_path / "export").exists()
    write(network(), "saved_model", tmp_path)


def test_what_a_format_cannot_hold_is_named(tmp_path, monkeypatch):
    def refuse(network, path):
        raise ValueError("no such operation:\n  Foo")

    broken = formats.Format("", {}, refuse, None)
    monkeypatch.setitem(formats.FORMATS, "onnx", broken)
    message = "export_format=onnx does not take network: .* operation: Foo"
    with pytest.raises(RecipeError, match=message):
        write(network(), "onnx", tmp_path)
    assert list((tmp_path / "export").iterdir()) == []
