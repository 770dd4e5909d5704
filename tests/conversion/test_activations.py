"""Conversion of the activations behind replaced layers."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_norm
from keras_norm.conversion import layer_predicates
from keras_norm.graphs import graph
from tests.conversion import small_models


def kinds(model):
    """Returns a dict from operation names to class names."""
    return {
        graph.operation(node).name: type(graph.operation(node)).__name__
        for node in graph.nodes(model)
    }


def convert(name, norm="frn", **kwargs):
    return keras_norm.convert(small_models.build(name), norm, **kwargs)


def test_every_spelling_of_relu_becomes_tlu():
    converted, report = convert("four_relus")
    assert list(kinds(converted).values()).count("TLU") == 4
    assert report.num_thresholds == 4 and report.num_relus_kept == 0


def test_relu_after_addition_gets_its_own_tlu():
    converted, report = convert("residual")
    found = kinds(converted)
    assert found["first_relu"] == found["out"] == "TLU"
    assert found["add"] == "Add"
    assert report.num_thresholds == 2
    behind = {e.path: e.activations for e in report.entries}
    assert [a.path for a in behind["shortcut_bn"]] == ["out"]
    assert [a.path for a in behind["first_bn"]] == ["first_relu"]
    assert [a.path for a in behind["second_bn"]] == ["out"]


def test_adding_tensors_is_an_addition_and_adding_a_constant_is_not():
    converted, report = convert("bare_operations")
    assert report.num_thresholds == 2
    converted, _ = convert("other_activations", activation="tlu")
    assert kinds(converted)["gate"] == "ReLU"


@pytest.mark.parametrize("norm", ["rbn", "gn", "bn", "eval_norm"])
def test_other_norms_keep_the_relu(norm):
    converted, report = convert("residual", norm)
    assert kinds(converted)["out"] == kinds(converted)["first_relu"] == "ReLU"
    assert (report.num_thresholds, report.num_relus_kept) == (0, 2)


def test_kept_capped_relus_hint_at_activation_tlu():
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3)
    )
    hint = (
        "Capped ReLUs that are kept behind new norms: 35. activation='tlu' "
        "(--activation tlu) converts each to min(TLU, 6)."
    )
    report = keras_norm.plan_conversion(model, "frn")
    assert hint in report.notes and hint in str(report)
    for norm, activation in (("frn", "tlu"), ("frn", "keep"), ("rbn", "auto")):
        report = keras_norm.plan_conversion(model, norm, activation=activation)
        assert not any("Capped" in note for note in report.notes)
    assert not any(
        "Capped" in note
        for note in keras_norm.plan_conversion(
            small_models.build("residual"), "frn"
        ).notes
    )


def test_policy_keep_keeps_every_activation():
    converted, report = convert("residual", activation="keep")
    assert kinds(converted)["out"] == kinds(converted)["first_relu"] == "ReLU"
    assert report.num_thresholds == 0
    assert report.entries[0].activations[0].becomes is None


@pytest.mark.parametrize("norm", ["frn", "rbn", "gn"])
def test_policy_tlu_applies_to_any_norm(norm):
    converted, report = convert("residual", norm, activation="tlu")
    assert kinds(converted)["out"] == kinds(converted)["first_relu"] == "TLU"
    assert report.num_thresholds == 2


def test_tlu_after_rbn_is_numerically_equivalent():
    _, report = convert("residual", "rbn", activation="tlu", verify=True)
    assert report.function == "rounding"


def test_other_activations_and_caps_are_kept():
    model = small_models.build("other_activations")
    converted, report = keras_norm.convert(model, "frn")
    source = kinds(model)
    changed = {k for k, v in kinds(converted).items() if source.get(k) != v}
    assert all(kinds(converted)[k] == "FRN" for k in changed)
    assert report.num_thresholds == 0

    converted, report = convert("other_activations", activation="tlu")
    capped = converted.get_layer("capped")
    assert type(capped) is keras_norm.TLU and capped.max_value == 6.0
    assert report.num_thresholds == 2  # the bare ops.relu6 is the other
    found = kinds(converted)
    assert found["threshold"] == "ReLU" and found["leaky"] == "LeakyReLU"
    assert found["squeeze_relu"] == "ReLU" and found["gate"] == "ReLU"
    texts = [a.becomes for e in report.entries for a in e.activations]
    assert texts.count("min(TLU, 6)") == 2


def test_relu6_becomes_min_of_tlu_and_six():
    converted, _ = convert("other_activations", activation="tlu")
    capped = converted.get_layer("capped")
    capped.tau.assign([-1.0, 0.0, 1.0, 7.0])
    x = np.linspace(-9, 9, 32, dtype="float32").reshape(8, 4)
    tau = np.array([-1.0, 0.0, 1.0, 7.0])
    np.testing.assert_allclose(
        ops.convert_to_numpy(capped(x.reshape(2, 2, 2, 4))).reshape(8, 4),
        np.minimum(np.maximum(x, tau), 6.0),
        rtol=1e-6,
    )


def test_every_activation_call_is_decided_separately():
    converted, report = convert("many_consumers")
    found = kinds(converted)
    assert found["relu1"] == found["relu2"] == "TLU"
    assert converted.get_layer("relu1") is not converted.get_layer("relu2")
    assert len(report.entries[0].activations) == 2
    # What the convolution and the output see has no threshold.
    conv = converted.get_layer("conv")
    node, _ = graph.producing_node(conv.input)
    assert graph.operation(node).name == "stem_bn"


def test_relu_is_kept_for_its_other_tensors():
    model = small_models.build("shared_relu")
    converted, report = keras_norm.convert(model, "frn")
    found = kinds(converted)
    assert found["relu"] == "ReLU"
    assert found["relu_narrow_bn"] == found["relu_wide_bn"] == "TLU"
    assert converted.get_layer("relu_narrow_bn").tau.shape == (4,)
    assert converted.get_layer("relu_wide_bn").tau.shape == (7,)
    assert (report.num_thresholds, report.num_relus_kept) == (2, 1)
    x = small_models.draw(model)
    np.testing.assert_array_equal(
        small_models.call(converted, x)[2], np.maximum(x, 0.0)
    )


def test_names_of_new_thresholds_are_unique():
    relu = layers.ReLU(name="relu")
    x = small_models.image()
    y = small_models.conv_block(x, "a", activation=False)
    first = relu(layers.Add()([y, x[..., :1]]))
    second = relu(layers.Add()([y, y * 2.0]))
    taken = layers.Identity(name="relu_a_bn")(x)
    model = keras.Model(x, [first, second, taken])
    converted, report = keras_norm.convert(model, "frn")
    assert report.num_thresholds == 2
    names = [name for name, kind in kinds(converted).items() if kind == "TLU"]
    assert names == ["relu_a_bn_1", "relu_a_bn_2"]


def test_relu_behind_a_nested_model_is_converted():
    converted, report = convert("nested")
    assert type(converted.get_layer("after")) is keras_norm.TLU
    inner = next(e for e in report.entries if e.path == "middle/inner/bn")
    assert [a.path for a in inner.activations] == ["after"]


def test_relu_behind_dropout_and_linear_is_converted():
    x = small_models.image()
    y = small_models.conv_block(x, "a", activation=False)
    y = layers.Activation("linear")(layers.Dropout(0.1)(y))
    y = layers.ReLU(name="relu")(y)
    y = layers.MaxPooling2D()(small_models.conv_block(y, "b", activation=False))
    y = layers.ReLU(name="after_pooling")(y)
    converted, report = keras_norm.convert(keras.Model(x, y), "frn")
    found = kinds(converted)
    assert found["relu"] == "TLU" and found["after_pooling"] == "ReLU"
    assert report.num_relus_kept == 1


def test_relus_behind_excluded_norms_are_kept():
    converted, report = convert("residual", include="first_bn")
    found = kinds(converted)
    assert found["first_relu"] == "TLU" and found["out"] == "ReLU"


def test_threshold_takes_dtype_and_trainable_from_its_relu():
    converted, _ = convert("mixed")
    assert converted.get_layer("relu").dtype_policy.name == "mixed_bfloat16"
    assert converted.get_layer("relu").tau.dtype == "float32"
    converted, _ = convert("frozen_nested")
    base = converted.get_layer("base")
    assert not base.get_layer("base_relu").trainable_weights
    assert len(converted.get_layer("head_relu").trainable_weights) == 1
    converted, _ = convert("thawed")
    assert not converted.get_layer("head_relu").trainable_weights


def test_threshold_of_a_bare_relu_takes_dtype_and_axis_from_its_norm():
    x = keras.Input((4, 6, 6))
    y = layers.BatchNormalization(axis=1, dtype="mixed_bfloat16", name="n")(x)
    model = keras.Model(x, ops.relu(y))
    converted, _ = keras_norm.convert(model, "frn")
    threshold = next(
        layer for layer in converted.layers if isinstance(layer, keras_norm.TLU)
    )
    assert threshold.axis == 1 and threshold.tau.shape == (4,)
    assert threshold.dtype_policy.name == "mixed_bfloat16"


def test_unknown_policy_raises():
    with pytest.raises(keras_norm.ConversionError, match="activation='relu'"):
        convert("residual", activation="relu")


@pytest.mark.parametrize(
    ("operation", "cap", "name"),
    [
        (layers.ReLU(), np.inf, "relu"),
        (layers.ReLU(6), 6.0, "relu6"),
        (layers.ReLU(20.0), 20.0, "relu20"),
        (layers.ReLU(negative_slope=0.1), None, "re_lu"),
        (layers.Activation("relu"), np.inf, "relu"),
        (layers.Activation("relu6"), 6.0, "relu6"),
        (layers.Activation("silu"), None, "silu"),
        (layers.Activation("linear"), None, None),
        (layers.Softmax(), None, "softmax"),
        (layers.Dense(1, activation="relu"), None, None),
        (layers.Add(), None, None),
    ],
)
def test_activation_layers_are_recognized(operation, cap, name):
    assert layer_predicates.relu_cap(operation) == cap
    assert layer_predicates.activation_name(operation) == name


@pytest.mark.parametrize(
    ("function", "cap", "name"),
    [
        (ops.relu, np.inf, "relu"),
        (ops.relu6, 6.0, "relu6"),
        (keras.activations.relu, np.inf, "relu"),
        (lambda x: keras.activations.relu(x, max_value=4), 4.0, "relu4"),
        (lambda x: keras.activations.relu(x, 0.1), None, "leaky_relu"),
        (ops.silu, None, "silu"),
        (ops.hard_silu, None, "hard_silu"),
        (ops.sigmoid, None, "sigmoid"),
        (ops.negative, None, None),
        (lambda x: x + 1.0, None, None),
    ],
)
def test_bare_activations_are_recognized(function, cap, name):
    node, _ = graph.producing_node(function(keras.Input((3,))))
    assert layer_predicates.relu_cap(graph.operation(node)) == cap
    assert layer_predicates.activation_name(graph.operation(node)) == name
