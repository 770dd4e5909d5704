"""Properties that every converted model has, on small models."""

import functools
import inspect
import sys
import warnings

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.graphs import graph
from tests.assertions import to_numpy
from tests.conversion import small_models

each_model = pytest.mark.parametrize("name", small_models.ZOO)


def each_model_with_one_of(*norms):
    """Marks a test to take each model, and the norms in turn.

    The other combinations are slow: a model's structure and a norm's weights
    are converted by different functions.
    """
    cases = []
    for i, name in enumerate(small_models.ZOO):
        for norm in norms:
            is_short = norm == norms[i % len(norms)]
            marks = () if is_short else pytest.mark.long
            cases.append(pytest.param(name, norm, marks=marks))
    return pytest.mark.parametrize(("name", "norm"), cases)


@functools.cache
def converted_model(name, norm):
    """Returns a model, its conversion and the report, shared by the tests."""
    model = small_models.build(name)
    return model, *keras_norm.convert(model, norm)


def state(model):
    """Returns everything that a conversion might change."""
    operations = [graph.operation(node) for node in graph.nodes(model)]
    return (
        model.to_json() if graph.keeps_class(model) else model.name,
        [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables],
        [layer.trainable for layer in small_models.every_layer(model)],
        [len(o._inbound_nodes) for o in operations],
        [len(o._outbound_nodes) for o in operations],
        model.compiled,
    )


def operations(model):
    return [graph.operation(node).name for node in graph.nodes(model)]


def signature(model):
    def describe(x):
        node, _ = graph.producing_node(x)
        return x.shape, x.dtype, graph.operation(node).name

    return keras.tree.map_structure(describe, graph.inputs(model))


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        if isinstance(old, list) and old and isinstance(old[0], np.ndarray):
            for x, y in zip(old, new, strict=True):
                np.testing.assert_array_equal(x, y)
        else:
            assert old == new


@each_model_with_one_of("sync_bn", "brn", "frozen")
def test_exact_norms_keep_outputs_bit_for_bit(name, norm):
    model, converted, report = converted_model(name, norm)
    inputs = small_models.draw(model)
    expected = small_models.call(model, inputs, training=False)
    got = small_models.call(converted, inputs, training=False)
    for theirs, ours in zip(expected, got, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert report.function == ("rounding" if name == "mixed" else "exact")


@each_model
def test_rbn_is_numerically_equivalent(name):
    model, converted, report = converted_model(name, "rbn")
    inputs = small_models.draw(model)
    expected = small_models.call(model, inputs, training=False)
    got = small_models.call(converted, inputs, training=False)
    tolerance = 5e-2 if name == "mixed" else 1e-5
    for theirs, ours in zip(expected, got, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
    assert report.function == "rounding"


def check_reload(name, norm, folder):
    model, converted, report = converted_model(name, norm)
    num = len(small_models.stock(model))
    assert len(report.replaced) == len(report.entries) == num > 0
    assert not small_models.stock(converted)
    inputs = small_models.draw(model)
    outputs = small_models.call(converted, inputs, training=False)
    assert all(np.isfinite(x).all() for x in outputs)
    if name == "with_lambda":
        return
    converted.save(folder / "converted.keras")
    reloaded = keras.saving.load_model(folder / "converted.keras")
    again = small_models.call(reloaded, inputs, training=False)
    for ours, theirs in zip(again, outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@each_model
def test_no_batch_norm_remains_and_outputs_survive_a_reload(name, tmp_path):
    check_reload(name, "frn", tmp_path)


@each_model_with_one_of("rbn", "gn", "bn")
def test_other_norms_survive_a_reload(name, norm, tmp_path):
    check_reload(name, norm, tmp_path)


@each_model_with_one_of("frn", "bn")
def test_source_is_unchanged_and_independent(name, norm):
    model = small_models.build(name)
    before = state(model)
    converted, _ = keras_norm.convert(model, norm)
    for variable in converted.variables:
        if "float" in str(variable.dtype):
            variable.assign(np.zeros(variable.shape))
    assert_same(before, state(model))
    theirs = {id(layer) for layer in small_models.every_layer(model)}
    assert not theirs & {
        id(layer) for layer in small_models.every_layer(converted)
    }


@each_model_with_one_of("rbn", "gn", "none")
def test_names_dtypes_and_trainable_carry_over(name, norm):
    model, converted, _ = converted_model(name, norm)
    old, new = (
        small_models.every_layer(model),
        small_models.every_layer(converted),
    )
    if name != "composites":  # An attention names its own dropout anew.
        assert [x.name for x in new] == [x.name for x in old]
    assert [x.trainable for x in new] == [x.trainable for x in old]
    pairs = list(zip(old, new, strict=True))
    for theirs, ours in pairs[1:]:
        assert ours.dtype_policy.name == theirs.dtype_policy.name, ours.name
    if (name, norm) != ("masked", "none"):  # where no one asks for the mask
        assert operations(converted) == operations(model)
    assert signature(converted) == signature(model)


@each_model
def test_weights_outside_the_norms_are_copied(name):
    model, converted, _ = converted_model(name, "frn")

    def others(model):
        return [
            (layer.name, v.name, keras.ops.convert_to_numpy(v))
            for layer in small_models.every_layer(model)
            if not isinstance(
                layer,
                (
                    keras.layers.BatchNormalization,
                    keras_norm.FRN,
                    keras_norm.TLU,
                ),
            )
            for v in layer._trainable_variables
        ]

    for theirs, ours in zip(others(model), others(converted), strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_array_equal(ours[2], theirs[2])


@each_model
def test_plan_equals_the_report_of_the_conversion(name):
    model, _, report = converted_model(name, "frn")
    before = state(model)
    plan = keras_norm.plan_conversion(model, "frn")
    assert_same(before, state(model))
    assert plan.to_dict() == report.to_dict()


@pytest.mark.parametrize("name", ["frozen_nested", "inference_calls"])
@pytest.mark.parametrize("training", [None, True])
def test_call_with_training_false_carries_over(name, training):
    # Keras overrules the recorded False by a True from outside.
    model = small_models.build(name)
    converted, _ = keras_norm.convert(model, "bn")
    inputs = small_models.draw(model)
    for each in (model, converted):
        each(inputs, training=training)
    for theirs, ours in zip(model.variables, converted.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    recorded = [
        graph.arguments(node)[1].get("training")
        for each in (model, converted)
        for node in graph.nodes(each)
    ]
    assert recorded.count(False) == 2


def test_mask_is_used_or_its_loss_is_noted():
    model = small_models.build("masked")
    inputs = small_models.draw(model)
    inputs[:, 4:] = 0.0
    converted, report = keras_norm.convert(model, "gn")
    assert report.entries[0].note is None
    longer = np.concatenate([inputs, 0 * inputs], axis=1)[:, :7]
    np.testing.assert_array_equal(
        small_models.call(converted, inputs)[0],
        small_models.call(converted, longer)[0],
    )
    _, report = keras_norm.convert(
        model, lambda bn: keras.layers.LayerNormalization(name=bn.name)
    )
    assert "ignores the mask" in report.entries[0].note
    assert "ignores the mask" in str(report)


def test_deep_model_is_rebuilt_without_recursion():
    model = small_models.chain(300)
    limit = sys.getrecursionlimit()
    # Keras itself recurses as deep as the graph, some calls a node.
    frames = len(inspect.stack())
    plan = keras_norm.plan_conversion(model, "frn")
    sys.setrecursionlimit(frames + 120)
    try:
        again = keras_norm.plan_conversion(model, "frn")
    finally:
        sys.setrecursionlimit(limit)
    assert plan.to_dict() == again.to_dict()
    converted, _ = keras_norm.convert(model, "bn", verify=True)
    assert len(graph.nodes(converted)) == 302


@pytest.mark.parametrize("name", ["sequential", "nested", "composites"])
@pytest.mark.parametrize("policies", [(1, 0), (0, 1)])
def test_default_dtype_policy_is_ignored(name, policies):
    then, now = (("float32", "mixed_bfloat16")[i] for i in policies)
    keras.config.set_dtype_policy(then)
    model = small_models.build(name)
    keras.config.set_dtype_policy(now)
    converted, _ = keras_norm.convert(model, "sync_bn", verify=True)
    assert keras.config.dtype_policy().name == now
    assert {x.dtype_policy.name for x in small_models.every_layer(model)} == {
        then
    }
    assert {
        x.dtype_policy.name for x in small_models.every_layer(converted)
    } == {then}


@each_model
def test_every_layer_is_called_once_per_node(name):
    model, converted, _ = converted_model(name, "rbn")
    for old, new in zip(model.layers, converted.layers, strict=True):
        inside = [
            node for node in graph.nodes(model) if graph.operation(node) is old
        ]
        if inside:  # The source may have been called elsewhere, too.
            assert len(new._inbound_nodes) == len(inside), new.name


def test_shared_layers_are_shared_after_conversion():
    model = small_models.build("shared_norm")
    converted, report = keras_norm.convert(model, "frn")
    assert len(report.entries) == 1
    layer = converted.get_layer("bn")
    threshold = converted.get_layer("relu")
    assert type(layer) is keras_norm.FRN and len(layer._inbound_nodes) == 2
    assert type(threshold) is keras_norm.TLU
    assert len(threshold._inbound_nodes) == 2
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    np.testing.assert_array_equal(small_models.call(converted, [x, x])[0], 0.0)


def test_nested_model_called_twice_is_rebuilt_once():
    model = small_models.build("siamese")
    converted, _ = keras_norm.convert(model, "frn")
    x = small_models.draw(model)["left"]
    same = small_models.call(converted, {"left": x, "right": x})
    np.testing.assert_allclose(same[1], 2 * same[0], rtol=1e-6)
    assert set(converted.output) == {"sum", "left"}


def test_functional_subclass_is_rebuilt_plain_with_a_note():
    model = small_models.build("backbone")
    converted, report = keras_norm.convert(model, "frn")
    assert type(model) is small_models.Backbone
    assert type(converted) is type(small_models.residual())
    assert "backbone is a Backbone; it is rebuilt as a plain" in report.notes[0]
    assert report.notes[0] in str(report)


def test_functional_subclass_without_a_constructor_keeps_its_class():
    @keras.saving.register_keras_serializable(package="keras_norm_tests")
    class Own(keras.Model):
        pass

    x = keras.Input((6, 6, 3))
    model = Own(x, small_models.conv_block(x, "stem"))
    converted, report = keras_norm.convert(model, "frn")
    assert type(converted) is Own and not report.notes


def test_optional_input_carries_over():
    model = small_models.build("optional_input")
    converted, _ = keras_norm.convert(model, "bn")
    x = small_models.draw(model)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = small_models.call(model, [x, None])
        except ValueError:
            pytest.skip("this Keras takes no None for an optional input")
        np.testing.assert_array_equal(
            small_models.call(converted, [x, None])[0], expected[0]
        )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="text needs TensorFlow"
)
def test_vocabulary_is_copied():
    lookup = keras.layers.StringLookup(output_mode="one_hot", name="lookup")
    lookup.adapt([["a", "b"], ["c", "b"]])
    x = keras.Input((1,), dtype="string")
    y = keras.layers.BatchNormalization(name="bn")(lookup(x))
    model = keras.Model(x, y)
    small_models.fill(model)
    converted, _ = keras_norm.convert(model, "bn")
    words = keras.ops.convert_to_tensor([["b"], ["a"], ["d"]])
    np.testing.assert_array_equal(
        small_models.call(converted, words)[0],
        small_models.call(model, words)[0],
    )


@pytest.mark.skipif(
    "renorm"
    not in inspect.signature(keras.layers.BatchNormalization).parameters,
    reason="this Keras has no Batch Renormalization",
)
def test_batch_renormalization_keeps_its_moments():
    x = keras.Input((6, 6, 3))
    y = keras.layers.BatchNormalization(
        renorm=True, renorm_clipping={"rmax": 2.0}, name="bn"
    )(x)
    model = keras.Model(x, y)
    small_models.fill(model)
    for norm in ("bn", "rbn", "brn"):
        converted, report = keras_norm.convert(model, norm, verify=True)
        assert {"renorm_mean", "renorm_stddev", "moving_stddev"} <= set(
            report.entries[0].copied
        )
        np.testing.assert_array_equal(
            to_numpy(converted.get_layer("bn").renorm_stddev),
            to_numpy(model.get_layer("bn").renorm_stddev),
        )


def test_lambda_calls_the_same_function():
    model = small_models.build("with_lambda")
    converted, _ = keras_norm.convert(model, "bn")
    theirs, ours = (m.get_layer("lambda") for m in (model, converted))
    assert ours is not theirs and ours.function is theirs.function
    assert ours.arguments == theirs.arguments != {}
    assert ours.arguments is not theirs.arguments


class Apply(keras.Operation):
    """Operation whose argument cannot be serialized."""

    def __init__(self, function):
        super().__init__(name="apply")
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_bare_operations_are_copied_with_their_arguments():
    x = keras.Input((4,))
    y = keras.layers.BatchNormalization()(x)
    model = keras.Model(x, Apply(lambda row: 2.0 * row)(y))
    _, report = keras_norm.convert(model, "bn", verify=True)
    assert report.comparisons[0].largest == 0.0


def test_sequential_that_overrides_call_is_not_a_graph():
    class Doubled(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return 2.0 * super().call(inputs, training, mask)

    parts = [keras.Input((3,)), keras.layers.BatchNormalization(name="bn")]
    doubled = Doubled(parts, name="doubled")
    with pytest.raises(keras_norm.ConversionError, match="'doubled' has no"):
        keras_norm.convert(doubled, "frn")
    outer = keras.Sequential([keras.Input((3,)), doubled])
    with pytest.raises(keras_norm.ConversionError, match="doubled/bn"):
        keras_norm.convert(outer, "frn")


def test_regularizers_constraints_and_momentum_carry_over():
    model = small_models.build("options")
    for norm in ("bn", "rbn", "eval_norm", "brn"):
        converted, _ = keras_norm.convert(model, norm)
        layer = converted.get_layer("bn")
        assert (layer.momentum, layer.epsilon) == (0.7, 2e-3)
        assert layer.gamma_regularizer.l2 == pytest.approx(0.1)
        assert isinstance(layer.beta_constraint, keras.constraints.NonNeg)
    layer = keras_norm.convert(model, "frn")[0].get_layer("bn")
    assert layer.epsilon == 1e-6
    assert layer.gamma_regularizer.l2 == pytest.approx(0.1)
    assert isinstance(layer.gamma_initializer, keras.initializers.Zeros)
    assert layer.gamma.regularizer is layer.gamma_regularizer


def test_arguments_take_precedence():
    model = small_models.build("options")
    converted, report = keras_norm.convert(
        model, "bn", epsilon=1e-4, momentum=0.5, gamma_regularizer=None
    )
    layer = converted.get_layer("bn")
    assert (layer.epsilon, layer.momentum) == (1e-4, 0.5)
    assert layer.gamma_regularizer is None
    assert report.function == "changed"


@pytest.mark.parametrize("name", ["positive_axis", "channels_first"])
def test_axis_carries_over(name):
    model = small_models.build(name)
    axis = model.get_layer("bn").axis
    converted, _ = keras_norm.convert(model, "frn")
    assert converted.get_layer("bn").axis == axis
    assert converted.get_layer("relu").axis == axis
    assert converted.get_layer("relu").tau.shape == (3,)


def test_vectors_get_a_learned_epsilon():
    converted, report = keras_norm.convert(small_models.build("vectors"), "frn")
    assert converted.get_layer("bn").learned_epsilon is not None
    assert report.entries[0].created == ("learned_epsilon",)
    converted, _ = keras_norm.convert(small_models.build("residual"), "frn")
    assert converted.get_layer("first_bn").learned_epsilon is None


def test_learned_epsilon_starts_at_the_variance():
    model = small_models.build("vectors")
    old = model.get_layer("bn")

    def epsilon(**kwargs):
        converted, _ = keras_norm.convert(model, "frn", **kwargs)
        return to_numpy(converted.get_layer("bn").learned_epsilon)

    expected = np.mean(to_numpy(old.moving_variance)) + old.epsilon
    np.testing.assert_allclose(epsilon(), expected, rtol=1e-6)
    np.testing.assert_allclose(epsilon(fresh=True), 1e-4, rtol=1e-6)
    for kwargs in (
        {"learned_epsilon": True},
        {"learned_epsilon_initializer": keras.initializers.Constant(0.3)},
    ):
        start = 1e-4 if "learned_epsilon" in kwargs else 0.3
        np.testing.assert_allclose(epsilon(**kwargs), start, rtol=1e-6)


def test_gradients_through_many_single_values_stay_finite():
    x = y = keras.Input((16,))
    for _ in range(60):
        y = keras.layers.Dense(16)(y)
        y = keras.layers.BatchNormalization()(y)
    model = keras.Model(x, y)
    converted, _ = keras_norm.convert(model, "frn")
    converted.compile(
        optimizer=keras.optimizers.SGD(1e-3), loss="mse", jit_compile=False
    )
    data = np.random.default_rng(0).normal(size=(4, 16)).astype("float32")
    converted.train_on_batch(data, data)
    for variable in converted.variables:
        assert np.isfinite(to_numpy(variable)).all(), variable.path


def test_channels_with_extreme_moments_are_kept():
    model = small_models.build("positive_axis")
    layer = model.get_layer("bn")
    layer.gamma.assign([0.0, -1.5, 2.0])
    layer.moving_variance.assign([0.0, 1e-36, 1e4])
    inputs = small_models.draw(model)
    for norm in ("bn", "frozen", "rbn"):
        converted, _ = keras_norm.convert(model, norm, verify=True)
        np.testing.assert_allclose(
            small_models.call(converted, inputs)[0],
            small_models.call(model, inputs)[0],
            rtol=1e-5,
            atol=1e-5,
        )


def test_fresh_initializes_new_layers():
    model = small_models.build("options")
    converted, report = keras_norm.convert(model, "rbn", fresh=True)
    layer = converted.get_layer("bn")
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    np.testing.assert_array_equal(layer.gamma, 0.0)
    np.testing.assert_array_equal(layer.beta, 0.0)
    assert not report.entries[0].copied


def test_model_with_norms_of_this_package_converts():
    model = small_models.build("residual")
    ours, _ = keras_norm.convert(model, "sync_bn")
    converted, report = keras_norm.convert(ours, "rbn", verify=True)
    assert len(report.replaced) == 3
    assert report.entries[0].layer == "BatchNormalization"
    assert type(converted.get_layer("first_bn")) is keras_norm.RBN


def test_layer_that_cannot_be_rebuilt_is_named():
    class NoConfig(keras.layers.Layer):
        def __init__(self, required, **kwargs):
            super().__init__(**kwargs)

        def call(self, x):
            return x

    x = keras.Input((6, 6, 3))
    y = small_models.conv_block(NoConfig(object(), name="stubborn")(x), "stem")
    with pytest.raises(keras_norm.ConversionError, match="'stubborn'"):
        keras_norm.convert(keras.Model(x, y), "frn")


def test_layer_changed_after_build_is_named():
    class Grown(keras.layers.Layer):
        width = 2

        def build(self, shape):
            self.add_weight(name="extra", shape=(self.width,))

        def call(self, x):
            return x

    x = keras.Input((3,))
    y = keras.layers.BatchNormalization()(Grown(name="grown")(x))
    model = keras.Model(x, y)
    Grown.width = 3
    with pytest.raises(
        keras_norm.ConversionError, match="'grown'.*different wei"
    ):
        keras_norm.convert(model, "frn")
