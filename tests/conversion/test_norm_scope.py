"""Models born with another norm, and what becomes of them in files."""

import threading

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.conversion import small_models

STOCK = layers.BatchNormalization


def composite():
    """Functional, with batch normalization where no graph walk gets."""
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
    """Saves its norm by the name of the attribute, whatever its class."""

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


def held(**flags):
    x = keras.Input((6, 6, 3))
    return keras.Model(x, Held(**flags)(x), name="held")


def draw():
    return np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")


def born(build, norm, **kwargs):
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


def test_what_is_built_from_code_is_born_with_the_norm():
    with keras_norm.norm_scope("frn") as scope:
        model = keras.applications.ResNet50(weights=None, classes=2)
    assert scope.num_replaced == len(scope.names) == 53
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras_norm.FRN) == 53 and STOCK not in kinds
    outside = keras.applications.ResNet50(weights=None, classes=2)
    ours = [layer.name for layer in model.layers[1:]]
    assert ours == [layer.name for layer in outside.layers[1:]]
    assert len(small_models.stock(outside)) == 53


def test_it_reaches_what_no_walk_does():
    for build in (composite, subclassed):
        with keras_norm.norm_scope("rbn") as scope:
            model = build()
        assert not small_models.stock(model)
        assert scope.num_replaced == (2 if build is composite else 1)


def test_the_options_of_the_code_carry_over():
    norm = born(subclassed, "rbn").norm
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


def test_a_name_bound_before_is_reached_too():
    from keras.layers import BatchNormalization as bound_before

    with keras_norm.norm_scope("frn"):
        assert type(bound_before()) is keras_norm.FRN
        config = STOCK.from_config({"name": "b"})
        assert type(config) is keras_norm.FRN
    assert type(bound_before()) is STOCK


def test_subclasses_are_left_alone():
    class Own(STOCK):
        pass

    with keras_norm.norm_scope("frn") as scope:
        assert type(Own()) is Own
    assert scope.num_replaced == 0


def test_an_exception_closes_the_scope():
    with pytest.raises(RuntimeError), keras_norm.norm_scope("frn"):
        raise RuntimeError
    assert type(layers.BatchNormalization()) is STOCK
    assert "__new__" not in vars(STOCK)


def test_a_bad_argument_leaves_the_scope_whole():
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


def test_the_innermost_scope_counts():
    with keras_norm.norm_scope("frn") as outer:
        with keras_norm.norm_scope("rbn") as inner:
            assert type(layers.BatchNormalization()) is keras_norm.RBN
        assert type(layers.BatchNormalization()) is keras_norm.FRN
    assert (outer.num_replaced, inner.num_replaced) == (1, 1)


def test_a_scope_belongs_to_its_thread():
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


def test_a_function_may_keep_batch_norm():
    with keras_norm.norm_scope(lambda bn: None) as scope:
        layer = layers.BatchNormalization(name="kept", epsilon=0.5)
    assert type(layer) is STOCK and layer.epsilon == 0.5
    assert layer.name == "kept" and scope.num_replaced == 0


NORMS = ["frn", "rbn", "gn", "bn", "frozen", "eval_norm", "in", "none"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", [composite, subclassed])
def test_it_reloads_inside_and_nowhere_else(norm, build, tmp_path):
    path = tmp_path / "born.keras"
    model = born(build, norm)
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
def test_other_arguments_are_another_scope(norm, kwargs, other, tmp_path):
    path = tmp_path / "born.keras"
    born(subclassed, norm, **kwargs).save(path)
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
def test_weights_that_look_alike_are_told_apart(norm, kwargs, flags, tmp_path):
    def build():
        return held(**flags)

    path = tmp_path / "born.keras"
    model = born(build, norm, **kwargs)
    stock = build()
    if norm != "bn":
        shapes = [[v.shape for v in m.variables] for m in (model, stock)]
        assert shapes[0] == shapes[1]
    model.save(path)
    with pytest.raises(Exception, match="norm"):
        load(path)
    weights = tmp_path / "born.weights.h5"
    model.save_weights(weights)
    with pytest.raises(Exception, match="norm"):
        stock.load_weights(weights)


def test_weights_of_batch_norm_load_only_where_they_mean_the_same(tmp_path):
    path = tmp_path / "stock.keras"
    model = held(center=False, scale=False)
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


def test_a_layer_of_another_package_that_looks_alike_is_told_apart(tmp_path):
    def other(bn):
        return layers.LayerNormalization(name=bn.name)

    path = tmp_path / "born.keras"
    born(lambda: held(center=False, scale=False), other).save(path)
    with pytest.raises(Exception, match="norm"):
        load(path)
    with keras_norm.norm_scope(other):
        load(path)


def test_what_lies_in_a_graph_loads_everywhere(tmp_path):
    model = born(small_models.residual, "frn")
    model.save(tmp_path / "born.keras")
    expected = small_models.call(model, draw(), training=False)[0]
    assert_reloads(tmp_path / "born.keras", expected)


def test_a_model_born_so_trains_and_converts():
    with keras_norm.norm_scope("bn"):
        model = small_models.residual()
    model.compile(optimizer="sgd", loss="mse")
    model.fit(draw(), np.zeros((2, 4)), verbose=0)
    converted, report = keras_norm.convert(model, "frn")
    assert len(report.replaced) == 3
    assert type(converted.get_layer("first_bn")) is keras_norm.FRN
