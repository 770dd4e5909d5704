"""Selection, weights, report, verification and errors of `convert`."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.conversion import report as report_lib
from keras_norm.conversion import verify
from keras_norm.conversion.entries import Entry
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.conversion import small_models

PATHS = ["middle/middle_bn", "middle/inner/bn"]


def replaced(report):
    return [entry.path for entry in report.replaced]


def is_wide(layer):
    return layer.gamma.shape[0] > 3


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, PATHS),
        ("*", None, PATHS),
        ("bn", None, PATHS[1:]),
        ("middle_*", None, PATHS[:1]),
        ("middle", None, PATHS),
        ("middle/inner", None, PATHS[1:]),
        (None, "middle/inner", PATHS[:1]),
        ("middle/*", "bn", PATHS[:1]),
        (re.compile("inner"), None, PATHS[1:]),
        (layers.BatchNormalization, None, PATHS),
        (is_wide, None, PATHS),
        (["bn", "middle_bn"], None, PATHS),
        (None, [lambda layer: layer.name == "bn"], PATHS[:1]),
    ],
)
def test_selection(include, exclude, expected):
    model = small_models.build("nested")
    converted, report = keras_norm.convert(
        model, "gn", include=include, exclude=exclude
    )
    assert replaced(report) == expected
    assert (
        len(report.kept)
        == 2 - len(expected)
        == len(small_models.stock(converted))
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"include": "midle_bn"}, "Did you mean 'middle_bn'.*include='midle"),
        ({"exclude": "conv5_*"}, "`exclude` matches no .*has 2: middle/middle"),
        ({"include": layers.ReLU}, "`include` matches no batch normalization"),
        ({"include": lambda layer: False}, "`include` matches no batch"),
        ({"include": "*", "exclude": "*"}, "nothing is left to convert"),
        ({"include": []}, "`include` is an empty list"),
        ({"include": 3}, "must be a name with .*include=3"),
        ({"include": ["bn", "bm"]}, "include='bm'"),
    ],
)
def test_selection_without_a_match_raises(kwargs, message):
    with pytest.raises(keras_norm.ConversionError, match=message) as error:
        keras_norm.convert(small_models.build("nested"), "gn", **kwargs)
    assert "\n" not in str(error.value)


def subclassed():
    class Own(keras.Model):
        def call(self, x):
            return x

    return Own(name="own")


def functional_with_call():
    @keras.saving.register_keras_serializable(package="keras_norm_tests")
    class Doubled(keras.Model):
        def call(self, x, training=None):
            return 2.0 * super().call(x, training=training)

    x = keras.Input((6, 6, 3))
    return Doubled(x, small_models.conv_block(x, "stem"), name="doubled")


@pytest.mark.parametrize(
    ("build", "norm", "kwargs", "message"),
    [
        (lambda: keras.Sequential([keras.Input((2,)), layers.Dense(2)]),
         "frn", {}, "has no batch normalization: nothing to convert"),
        (small_models.residual, "frm", {}, "Did you mean 'frn'"),
        (small_models.residual, 3, {}, "Unknown norm.*Received: 3"),
        (subclassed, "frn", {}, "'own' has no functional graph.*norm_scope"),
        (functional_with_call, "frn", {}, "'doubled' has no functional graph"),
        (lambda: "resnet.keras", "frn", {}, "not the path.*resnet.keras'"),
        (lambda: keras.Sequential([layers.BatchNormalization()]),
         "frn", {}, "is not built"),
        (small_models.residual, "gn", {"groups": 3}, "'first_bn'.*groups=3"),
        (small_models.vectors, "in", {}, "'bn'.*is 0 whatever the input"),
        (small_models.vectors, "frn", {"learned_epsilon": False}, "bn.*sign"),
        (small_models.residual, "frn", {"eps": 1}, "takes no argument 'eps'"),
        (small_models.residual, lambda bn: bn.name, {}, "must return a new"),
        (small_models.residual, lambda bn: None, {"groups": 1},
         "inside the function"),
        (small_models.residual, keras_norm.FRN(), {}, "place would share"),
        (small_models.residual, layers.Identity, {}, "'first_bn'.*axis"),
        (small_models.wrapped, "frn", {}, "2 batch normalizations are outside"),
    ],
)  # fmt: skip
def test_invalid_model_or_norm_raises(build, norm, kwargs, message):
    model = build()
    with pytest.raises(keras_norm.ConversionError, match=message) as error:
        keras_norm.convert(model, norm, **kwargs)
    assert "\n" not in str(error.value)


def test_unreachable_layers_are_listed_and_kept_if_not_strict():
    model = small_models.wrapped()
    small_models.fill(model)
    plan = keras_norm.plan_conversion(model, "rbn")
    converted, report = keras_norm.convert(
        model, "rbn", strict=False, verify=True
    )
    assert plan.to_dict()["entries"] == report.to_dict()["entries"]
    assert replaced(report) == ["bn"]
    found = {e.path: e.reason for e in report.unreachable}
    assert found == {
        "wrapper/inside": "inside 'wrapper', a TimeDistributed",
        "block/norm": "inside 'block', a Block",
    }
    assert len(small_models.stock(converted)) == 2
    assert "wrapper/inside" in str(report) and "unreachable" in str(report)


def test_excluded_layers_may_be_unreachable():
    model = small_models.wrapped()
    _, report = keras_norm.convert(model, "gn", exclude=["wrapper", "block"])
    assert replaced(report) == ["bn"] and len(report.kept) == 2


def test_subclass_that_overrides_call_is_not_converted():
    @keras.saving.register_keras_serializable(package="keras_norm_tests")
    class Renamed(layers.BatchNormalization):
        pass

    @keras.saving.register_keras_serializable(package="keras_norm_tests")
    class Doubled(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return 2.0 * super().call(inputs, training, mask)

    x = small_models.image()
    model = keras.Model(x, Doubled(name="b")(Renamed(name="a")(x)))
    report = keras_norm.plan_conversion(model, "frn")
    assert replaced(report) == ["a"]
    assert "Doubled overrides `call`" in report.unreachable[0].reason


def test_norm_function_creates_or_keeps_layers():
    def replace(bn):
        if bn.name == "shortcut_bn":
            return None
        return layers.GroupNormalization(
            groups=2, axis=bn.axis, name=bn.name, epsilon=bn.epsilon
        )

    model = small_models.build("residual")
    converted, report = keras_norm.convert(model, replace)
    assert replaced(report) == ["first_bn", "second_bn"]
    assert [e.path for e in report.kept] == ["shortcut_bn"]
    assert type(converted.get_layer("first_bn")) is layers.GroupNormalization
    gamma = model.get_layer("first_bn").gamma
    np.testing.assert_array_equal(converted.get_layer("first_bn").gamma, gamma)
    assert report.norm == "replace" and report.function == "changed"


def test_norm_may_be_a_layer_class_or_a_norm():
    model = small_models.build("residual")
    converted, _ = keras_norm.convert(
        model, keras_norm.RBN, scale_statistic=None
    )
    assert converted.get_layer("first_bn").scale_statistic is None
    norm = keras_norm.get("gn", groups=2)
    assert keras_norm.convert(model, norm)[0].get_layer("first_bn").groups == 2


def entry(name, norm, **kwargs):
    _, report = keras_norm.convert(small_models.build(name), norm, **kwargs)
    return report.entries[0]


MOVING = ("moving_mean", "moving_variance")


def test_weights_are_copied_created_and_dropped_by_name():
    frn = entry("residual", "frn")
    assert (frn.copied, frn.created, frn.dropped) == (
        ("gamma", "beta"), (), MOVING
    )  # fmt: skip
    rbn = entry("residual", "rbn")
    assert rbn.copied == ("gamma", "beta", *MOVING) and rbn.dropped == ()
    assert rbn.created == ("center_weight", "scale_weight", "scale_bias")
    none = entry("residual", "none")
    assert none.dropped == ("gamma", "beta", *MOVING)
    brn = entry("residual", "brn")
    assert brn.created == ("moving_stddev", "renorm_mean", "renorm_stddev")


def test_copied_weights_have_the_old_values():
    model = small_models.build("residual")
    old = model.get_layer("first_bn")
    for norm in ("frn", "gn", "in", "ln", "eval_norm", "brn", "frozen"):
        new = keras_norm.convert(model, norm)[0].get_layer("first_bn")
        for weight in ("gamma", "beta", *MOVING):
            if hasattr(new, weight):
                assert_array_equal(getattr(new, weight), getattr(old, weight))
    new = keras_norm.convert(model, "rbn")[0].get_layer("first_bn")
    level = 1.0 / (1.0 + np.exp(-1.0))
    assert_allclose(to_numpy(new.gamma) * level, old.gamma)


@pytest.mark.parametrize("norm", ["frn", "rbn", "gn"])
def test_missing_gamma_becomes_ones(norm):
    model = small_models.build("without_affine")
    converted, report = keras_norm.convert(model, norm)
    gamma = keras.ops.convert_to_numpy(converted.get_layer("no_gamma").gamma)
    if norm == "rbn":
        gamma = gamma / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(gamma, 1.0, rtol=1e-6)
    assert "gamma" in report.entries[0].created
    if norm != "rbn":
        np.testing.assert_array_equal(converted.get_layer("no_beta").beta, 0.0)


def test_rbn_gamma_is_divided_by_its_restriction():
    model = small_models.build("residual")
    for kwargs in (
        {"restriction": "tanh"},
        {"scale_bias_initializer": keras.initializers.Constant(0.3)},
        {"scale_statistic": None},
        {"center_statistic": "std", "scale_statistic": "std"},
    ):
        _, report = keras_norm.convert(model, "rbn", verify=True, **kwargs)
        assert report.function == "rounding"
    for kwargs in (
        {"statistics": "instance"},
        {"scale_weight_initializer": "ones"},
        {"center_weight_initializer": "ones"},
        {"scale_bias_initializer": "zeros", "restriction": "relu"},
    ):
        _, report = keras_norm.convert(model, "rbn", **kwargs)
        assert report.function == "changed"


def test_brn_starts_at_the_moments_of_batch_norm():
    model = small_models.build("residual")
    layer = keras_norm.convert(model, "brn")[0].get_layer("first_bn")
    np.testing.assert_array_equal(layer.renorm_mean, layer.moving_mean)
    stddev = np.sqrt(np.array(layer.moving_variance) + layer.epsilon)
    np.testing.assert_allclose(layer.renorm_stddev, stddev, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_stddev, stddev, rtol=1e-6)


def test_synchronization_and_activity_regularizers_carry_over():
    x = small_models.image()
    # Keras' own synchronizes on TensorFlow alone.
    synchronized = keras.backend.backend() == "tensorflow"
    y = layers.BatchNormalization(
        synchronized=synchronized, activity_regularizer="l2", name="bn"
    )(x)
    for norm in ("bn", "rbn"):
        converted, _ = keras_norm.convert(keras.Model(x, y), norm)
        layer = converted.get_layer("bn")
        assert layer.synchronized is synchronized
        assert isinstance(layer.activity_regularizer, keras.regularizers.L2)


def test_verification_reports_differences():
    model = small_models.build("residual")
    given = small_models.draw(model, batch=5)
    _, report = keras_norm.convert(model, "sync_bn", inputs=given)
    random, real = report.comparisons
    assert (random.inputs, real.inputs, real.num_samples) == (
        "random", "given", 5
    )  # fmt: skip
    assert random.largest == real.largest == real.relative == 0.0
    _, report = keras_norm.convert(model, "rbn", verify=True)
    assert 0.0 <= report.comparisons[0].relative < 1e-5
    _, report = keras_norm.convert(model, "frn", verify=True)
    assert report.comparisons[0].relative > 1e-2
    assert "compared on 2 random samples: largest difference" in str(report)


@pytest.mark.parametrize("norm", ["bn", "rbn"])
def test_different_outputs_of_equivalent_models_raise(norm):
    model = small_models.build("residual")
    converted, report = keras_norm.convert(model, norm)
    converted.get_layer("first_bn").beta.assign_add([1e-3, 0.0, 0.0, 0.0])
    with pytest.raises(keras_norm.ConversionError, match="outputs differ by"):
        verify.verify_conversion(model, converted, report)
    converted.get_layer("first_bn").beta.assign([np.nan, 0.0, 0.0, 0.0])
    with pytest.raises(keras_norm.ConversionError, match="not finite"):
        verify.verify_conversion(model, converted, report)


@pytest.mark.parametrize("name", ["siamese", "masked", "shared_norm"])
def test_every_structure_of_inputs_is_verified(name):
    _, report = keras_norm.convert(small_models.build(name), "bn", verify=True)
    assert report.comparisons[0].largest == 0.0


def test_random_inputs_have_unknown_sizes_and_integers():
    tokens = keras.Input((None,), dtype="int32")
    y = layers.Embedding(5, 4)(tokens)
    y = layers.BatchNormalization()(y)
    _, report = keras_norm.convert(keras.Model(tokens, y), "bn", verify=True)
    assert report.comparisons[0].largest == 0.0


def test_report_prints_a_table_and_json():
    model = small_models.build("many_consumers")
    _, report = keras_norm.convert(model, "frn")
    text = str(report)
    for part in ("stem_bn", "FRN", "relu1: TLU", "relu2: TLU", "changed"):
        assert part in text
    assert "weights a: copied gamma, beta; dropped moving_mean" in text
    assert "consumers, 1 batch normalization: 1 to FRN. 2 TLU created" in text
    assert max(map(len, text.splitlines())) <= 120
    data = json.loads(report.to_json())
    assert data["num_replaced"] == 1 and data["function"] == "changed"
    assert data["entries"][0]["shape"] == [None, 6, 6, 4]
    assert data["entries"][0]["activations"][1]["becomes"] == "TLU"


def test_function_of_a_report_is_its_worst_entry():
    def made(*kinds):
        entries = [
            Entry("p", "BN", None, "replaced", "L", function=kind)
            for kind in kinds
        ]
        return report_lib.ConversionReport("m", "n", entries).function

    assert made("exact", "exact") == "exact"
    assert made("exact", "rounding") == "rounding"
    assert made("rounding", "changed", "exact") == "changed"


def test_converted_model_is_not_compiled_and_trains():
    model = small_models.build("compiled")
    converted, report = keras_norm.convert(model, "frn")
    assert not converted.compiled and "is compiled" in report.notes[0]
    converted.compile(optimizer="sgd", loss="mse")
    x = small_models.draw(model, batch=8)
    history = converted.fit(x, np.zeros((8, 2)), epochs=3, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
