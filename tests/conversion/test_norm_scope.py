"""Models built in a `norm_scope`, and their files."""

import threading

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.conversion import small_models

STOCK = layers.BatchNormalization


def composite():
    """Functional model with batch normalization outside its graph."""
    x = keras.Input((6, 6, 3), name="image")
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.BatchNormalization(name="outer")(y)
    y = small_models.Block(name="block")(y)
    return keras.Model(x, y, name="composite")


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class Subclassed(keras.Model):
    def __init__(self, center=True, scale=True, **kwargs):
        super().__init__(**kwargs)
        self.center, self.scale = center, scale
        self.norm = layers.BatchNormalization(
            center=center, scale=scale, epsilon=1e-2, name="norm"
        )

    def call(self, inputs, training=None, mask=None):
        return self.norm(inputs, training=training)

    def get_config(self):
        return {"name": self.name, "center": self.center, "scale": self.scale}


def subclassed(**kwargs):
    model = Subclassed(name="subclassed", **kwargs)
    model(np.zeros((1, 6, 6, 3), "float32"))
    return model


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class Held(layers.Layer):
    """Layer that saves its norm under the name of the attribute."""

    def __init__(self, center=True, scale=True, **kwargs):
        super().__init__(**kwargs)
        self.center, self.scale = center, scale
        self.norm = layers.BatchNormalization(
            center=center, scale=scale, name="norm"
        )

    def build(self, shape):
        self.norm.build(shape)

    def call(self, inputs):
        return self.norm(inputs)

    def get_config(self):
        flags = {"center": self.center, "scale": self.scale}
        return {**super().get_config(), **flags}


def with_flags(**flags):
    x = keras.Input((6, 6, 3))
    return keras.Model(x, Held(**flags)(x), name="with_flags")


def draw():
    return np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")


def build_in_scope(build, norm, **kwargs):
    with keras_norm.norm_scope(norm, **kwargs):
        model = build()
    small_models.fill(model)
    return model


def load(path):
    return keras.saving.load_model(path)


def assert_reloads(path, expected):
    np.testing.assert_array_equal(
        small_models.call(load(path), draw(), training=False)[0], expected
    )


def test_models_built_in_the_scope_have_the_norm():
    with keras_norm.norm_scope("frn") as scope:
        model = keras.applications.ResNet50(weights=None, classes=2)
    assert scope.num_replaced == len(scope.names) == 53
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras_norm.FRN) == 53 and STOCK not in kinds
    outside = keras.applications.ResNet50(weights=None, classes=2)
    ours = [layer.name for layer in model.layers[1:]]
    assert ours == [layer.name for layer in outside.layers[1:]]
    assert len(small_models.stock(outside)) == 53


def test_scope_replaces_layers_outside_the_graph():
    for build in (composite, subclassed):
        with keras_norm.norm_scope("rbn") as scope:
            model = build()
        assert not small_models.stock(model)
        assert scope.num_replaced == (2 if build is composite else 1)


def test_options_of_batch_norm_carry_over():
    norm = build_in_scope(subclassed, "rbn").norm
    assert (norm.name, norm.epsilon, norm.momentum) == ("norm", 1e-2, 0.99)
    with keras_norm.norm_scope("gn", groups=2):
        layer = layers.BatchNormalization(
            axis=1,
            dtype="mixed_bfloat16",
            gamma_initializer="zeros",
            trainable=False,
        )
    assert (layer.groups, layer.axis, layer.trainable) == (2, 1, False)
    assert layer.dtype_policy.name == "mixed_bfloat16"
    assert isinstance(layer.gamma_initializer, keras.initializers.Zeros)


def test_scope_replaces_layers_of_an_imported_name():
    from keras.layers import BatchNormalization as bound_before

    with keras_norm.norm_scope("frn"):
        assert type(bound_before()) is keras_norm.FRN
        config = STOCK.from_config({"name": "b"})
        assert type(config) is keras_norm.FRN
    assert type(bound_before()) is STOCK


def test_subclasses_are_not_replaced():
    class Own(STOCK):
        pass

    with keras_norm.norm_scope("frn") as scope:
        assert type(Own()) is Own
    assert scope.num_replaced == 0


def test_exception_closes_the_scope():
    with pytest.raises(RuntimeError), keras_norm.norm_scope("frn"):
        raise RuntimeError
    assert type(layers.BatchNormalization()) is STOCK
    assert "__new__" not in vars(STOCK)


def test_invalid_argument_does_not_break_the_scope():
    with keras_norm.norm_scope("gn", groups=0):
        with pytest.raises(keras_norm.ConversionError, match="groups=0"):
            layers.BatchNormalization()
        with pytest.raises(keras_norm.ConversionError, match="groups=0"):
            layers.BatchNormalization()
    assert type(layers.BatchNormalization()) is STOCK
    with pytest.raises(keras_norm.ConversionError, match="Did you mean 'eps"):
        with keras_norm.norm_scope("gn", eps=1):
            pass
    assert type(layers.BatchNormalization()) is STOCK
    with pytest.raises(keras_norm.ConversionError, match="mean 'frn'"):
        with keras_norm.norm_scope("frm"):
            pass


def test_innermost_scope_takes_precedence():
    with keras_norm.norm_scope("frn") as outer:
        with keras_norm.norm_scope("rbn") as inner:
            assert type(layers.BatchNormalization()) is keras_norm.RBN
        assert type(layers.BatchNormalization()) is keras_norm.FRN
    assert (outer.num_replaced, inner.num_replaced) == (1, 1)


def test_scope_applies_to_its_thread():
    entered, made = threading.Barrier(3), {}

    def work(norm):
        scope = keras_norm.norm_scope(norm) if norm else None
        if scope:
            scope.__enter__()
        entered.wait()
        made[norm] = type(layers.BatchNormalization())
        entered.wait()
        if scope:
            scope.__exit__(None, None, None)

    threads = [
        threading.Thread(target=work, args=(norm,))
        for norm in ("frn", "rbn", None)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {"frn": keras_norm.FRN, "rbn": keras_norm.RBN, None: STOCK}
    assert "__new__" not in vars(STOCK)


def test_norm_function_may_keep_batch_norm():
    with keras_norm.norm_scope(lambda bn: None) as scope:
        layer = layers.BatchNormalization(name="kept", epsilon=0.5)
    assert type(layer) is STOCK and layer.epsilon == 0.5
    assert layer.name == "kept" and scope.num_replaced == 0


NORMS = ["frn", "rbn", "gn", "bn", "frozen", "eval_norm", "in", "none"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", [composite, subclassed])
def test_model_reloads_only_inside_the_same_scope(norm, build, tmp_path):
    path = tmp_path / "model.keras"
    model = build_in_scope(build, norm)
    expected = small_models.call(model, draw(), training=False)[0]
    model.save(path)
    with keras_norm.norm_scope(norm):
        again = load(path)
        np.testing.assert_array_equal(
            small_models.call(again, draw(), training=False)[0], expected
        )
        again.save(tmp_path / "again.keras")
        assert_reloads(tmp_path / "again.keras", expected)
    for place in (path, tmp_path / "again.keras"):
        with pytest.raises(Exception, match="norm"):
            load(place)
    for other in ("frn", "gn", "none"):
        if other != norm:
            with (
                keras_norm.norm_scope(other),
                pytest.raises(Exception, match="norm"),
            ):
                load(path)


@pytest.mark.parametrize(
    ("norm", "kwargs", "other"),
    [
        ("gn", {"groups": 1}, {"groups": 3}),
        ("frn", {"epsilon": 1e-6}, {"epsilon": 1e-1}),
        ("frn", {}, {"groups": 1}),
        ("rbn", {}, {"restriction": "tanh"}),
    ],
)
def test_model_does_not_reload_with_other_arguments(
    norm, kwargs, other, tmp_path
):
    path = tmp_path / "model.keras"
    build_in_scope(subclassed, norm, **kwargs).save(path)
    with keras_norm.norm_scope(norm, **other):
        with pytest.raises(ValueError, match="'norm' is keras_norm>"):
            load(path)


@pytest.mark.parametrize(
    ("norm", "kwargs", "flags"),
    [
        # As many weights, and of the same shapes, as batch normalization has.
        ("frn", {}, {"center": False, "scale": False}),
        ("gn", {}, {"center": False, "scale": False}),
        ("frn", {"learned_epsilon": "channel"}, {"scale": False}),
        (
            "rbn",
            {"statistics": "instance", "scale_statistic": None},
            {"scale": False},
        ),
        ("bn", {}, {}),
    ],
)
def test_weights_of_equal_shapes_are_distinguished(
    norm, kwargs, flags, tmp_path
):
    def build():
        return with_flags(**flags)

    path = tmp_path / "model.keras"
    model = build_in_scope(build, norm, **kwargs)
    stock = build()
    if norm != "bn":
        shapes = [[v.shape for v in m.variables] for m in (model, stock)]
        assert shapes[0] == shapes[1]
    model.save(path)
    with pytest.raises(Exception, match="norm"):
        load(path)
    weights = tmp_path / "model.weights.h5"
    model.save_weights(weights)
    with pytest.raises(Exception, match="norm"):
        stock.load_weights(weights)


def test_batch_norm_weights_load_only_into_equivalent_layers(tmp_path):
    path = tmp_path / "stock.keras"
    model = with_flags(center=False, scale=False)
    small_models.fill(model)
    model.save(path)
    expected = small_models.call(model, draw(), training=False)[0]
    for norm in ("bn", "sync_bn", "frozen"):
        with keras_norm.norm_scope(norm):
            assert_reloads(path, expected)
    for norm in ("gn", "frn"):
        with (
            keras_norm.norm_scope(norm),
            pytest.raises(ValueError, match="was batch normalization"),
        ):
            load(path)


def test_similar_layer_of_another_package_is_distinguished(tmp_path):
    def other(bn):
        return layers.LayerNormalization(name=bn.name)

    path = tmp_path / "model.keras"
    build_in_scope(lambda: with_flags(center=False, scale=False), other).save(
        path
    )
    with pytest.raises(Exception, match="norm"):
        load(path)
    with keras_norm.norm_scope(other):
        load(path)


def test_functional_model_reloads_without_a_scope(tmp_path):
    model = build_in_scope(small_models.residual, "frn")
    model.save(tmp_path / "model.keras")
    expected = small_models.call(model, draw(), training=False)[0]
    assert_reloads(tmp_path / "model.keras", expected)


def test_model_built_in_a_scope_trains_and_converts():
    with keras_norm.norm_scope("bn"):
        model = small_models.residual()
    model.compile(optimizer="sgd", loss="mse")
    model.fit(draw(), np.zeros((2, 4)), verbose=0)
    converted, report = keras_norm.convert(model, "frn")
    assert len(report.replaced) == 3
    assert type(converted.get_layer("first_bn")) is keras_norm.FRN
