"""Contract tests of every layer, over one table of layers."""

import keras
import numpy as np
import pytest

from tests import reference
from tests.assertions import assert_close
from tests.backend_gradients import value_and_gradients
from tests.layers.members import MEMBERS
from tests.layers.members import each_batch_member
from tests.layers.members import each_member
from tests.layers.members import each_member_and_mode
from tests.layers.members import weights_of

SHAPE = (2, 5, 7, 3)
FLOATS = ("float32", "float64")

each_normalizer = pytest.mark.parametrize(
    "name", [name for name, member in MEMBERS.items() if member.normalizes]
)
each_member_without_function = pytest.mark.parametrize(
    "name", [name for name in MEMBERS if name != "rbn_function"]
)
each_masked_member = pytest.mark.parametrize(
    "name",
    [
        name
        for name, member in MEMBERS.items()
        if member.normalizes and name != "rbn_function"
    ],
)


def draw(shape=SHAPE, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.7, 1.3, shape).astype(dtype)


def output_of(layer, x):
    return keras.ops.convert_to_numpy(layer(x, training=False))


@each_member
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("training", [False, True])
def test_output_and_gradients_equal_the_oracle(name, dtype, training):
    member = MEMBERS[name]
    layer = member.build(SHAPE, dtype=dtype)
    weights = weights_of(layer)
    x = draw(dtype=dtype)
    upstream = draw(seed=2)

    output, input_gradient, gradients = value_and_gradients(
        layer, x, upstream, training=training
    )

    trained = {v.name: weights[v.name] for v in layer.trainable_variables}
    expected = reference.gradients(
        lambda at: member.expected(
            at["x"], {**weights, **at}, training=training
        ),
        {"x": x.astype(np.float64), **trained},
        upstream,
    )
    exact = 1e-12 if dtype == "float64" else 1e-5
    assert_close(output, member.expected(x, weights, training=training), exact)
    assert_close(input_gradient, expected["x"])
    assert set(gradients) == set(trained)
    for weight, gradient in gradients.items():
        assert_close(gradient, expected[weight])


@each_member_and_mode
@pytest.mark.parametrize(
    "shape", [(2, 5, 3), (2, 5, 7, 3), (2, 3, 5, 4, 3), (1, 1, 6, 3)]
)
def test_every_rank_channels_first_and_last(name, shape, training):
    member = MEMBERS[name]
    x = draw(shape)
    last = member.build(shape)
    expected = member.expected(x, weights_of(last), training=training)
    assert_close(last(x, training=training), expected)

    first_shape = (shape[0], shape[-1], *shape[1:-1])
    first = member.build(first_shape, axis=1)
    output = first(np.moveaxis(x, -1, 1), training=training)
    output = np.moveaxis(keras.ops.convert_to_numpy(output), 1, -1)
    assert_close(output, expected)


@each_member
def test_unknown_spatial_sizes(name):
    member = MEMBERS[name]
    layer = member.build((None, None, None, 3))
    x = draw((3, 4, 6, 3))
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    expected = member.expected(x, weights_of(layer))
    assert_close(model.predict(x, verbose=0), expected)


@each_masked_member
@pytest.mark.parametrize("training", [False, True])
def test_masked_positions_count_in_no_statistic(name, training):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    x = draw()
    mask = np.random.default_rng(3).uniform(size=SHAPE[:-1]) < 0.6
    expected = member.expected(
        x, weights_of(layer), mask=mask, training=training
    )
    output = keras.ops.convert_to_numpy(layer(x, mask=mask, training=training))
    assert_close(output, expected)

    layer = member.build(SHAPE)
    garbage = np.where(mask[..., None], x, np.float32("nan"))
    output = keras.ops.convert_to_numpy(
        layer(garbage, mask=mask, training=training)
    )
    assert_close(output[mask], expected[mask])


@each_masked_member
def test_gradients_of_masked_inputs_equal_the_oracle(name):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    weights = weights_of(layer)
    x, upstream = draw(), draw(seed=2)
    mask = np.random.default_rng(3).uniform(size=SHAPE[:-1]) < 0.6
    _, input_gradient, _ = value_and_gradients(
        layer, x, upstream, mask=mask, training=True
    )
    expected = reference.gradients(
        lambda at: member.expected(at["x"], weights, mask=mask, training=True),
        {"x": x.astype(np.float64)},
        upstream,
    )
    assert_close(input_gradient, expected["x"])


@each_masked_member
def test_a_fully_masked_sample_stays_finite(name):
    member = MEMBERS[name]
    mask = np.ones(SHAPE[:-1], bool)
    mask[0] = False
    for training in (False, True):
        output = member.build(SHAPE)(draw(), mask=mask, training=training)
        assert np.isfinite(keras.ops.convert_to_numpy(output)).all()


@each_normalizer
def test_a_mask_of_another_rank_is_refused(name):
    layer = MEMBERS[name].build(SHAPE)
    with pytest.raises(ValueError, match=r"mask.shape=\(2, 5\)"):
        layer(draw(), mask=np.ones((2, 5), bool), training=True)


@each_member_and_mode
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_large_inputs_stay_finite_in_half_precision(name, policy, training):
    layer = MEMBERS[name].build(SHAPE, dtype=policy)
    x = draw() * 1e4
    x[0, 0, 0] = 70000.0
    output = layer(x, training=training)
    assert keras.backend.standardize_dtype(output.dtype) == policy[6:]
    output = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
    assert np.isfinite(output).all()


@each_member_and_mode
@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
def test_statistics_are_float32_under_every_policy(name, policy, training):
    member = MEMBERS[name]
    layer = member.build(SHAPE, dtype=policy)
    x = keras.ops.cast(draw() * 300.0, policy.removeprefix("mixed_"))
    seen = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
    expected = member.expected(seen, weights_of(layer), training=training)
    output = keras.ops.cast(layer(x, training=training), "float32")
    assert_close(output, expected, rtol=1e-2 if "b" in policy else 2e-3)


@each_member
def test_weights_are_read_in_full_under_a_mixed_policy(name):
    layer = MEMBERS[name].build(SHAPE, dtype="mixed_bfloat16")
    assert all(not v._autocast for v in layer.variables)
    assert {v.dtype for v in layer.variables} <= {"float32"}


@each_member
def test_planes_of_zeros_give_finite_values_and_gradients(name):
    member = MEMBERS[name]
    x = draw()
    x[:, :, :, 0] = 0.0
    x[0] = 0.0
    layer = member.build(SHAPE)
    expected = member.expected(x, weights_of(layer), training=True)
    output, input_gradient, gradients = value_and_gradients(
        layer, x, draw(seed=2), training=True
    )
    assert_close(output, expected)
    assert np.isfinite(input_gradient).all()
    assert all(np.isfinite(g).all() for g in gradients.values())


@each_member
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_sample_stays_alone_at_inference(name, bad):
    layer = MEMBERS[name].build(SHAPE)
    x = draw()
    clean = keras.ops.convert_to_numpy(layer(x))
    x[0, 0, 0] = bad
    output = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(output[1], clean[1])


@each_member_without_function
def test_an_empty_batch_gives_an_empty_batch(name):
    layer = MEMBERS[name].build(SHAPE)
    before = weights_of(layer)
    for training in (False, True):
        output = layer(draw((0, 5, 7, 3)), training=training)
        assert tuple(output.shape) == (0, 5, 7, 3)
    for weight, value in weights_of(layer).items():
        np.testing.assert_array_equal(value, before[weight])


@each_member
def test_config_is_the_same_before_and_after_build(name):
    member = MEMBERS[name]
    layer = member.cls(**member.kwargs, name="layer")
    before = layer.get_config()
    layer.build(SHAPE)
    after = layer.get_config()
    if before.get("groups") == "auto":
        # A saved model must not depend on what the default is.
        assert after["groups"] == 1
        after["groups"] = "auto"
    assert after == before
    assert member.cls.from_config(before).get_config() == before


@each_member
def test_it_is_registered_by_the_package_and_reloads_exactly(name, tmp_path):
    member = MEMBERS[name]
    registered = keras.saving.get_registered_name(member.cls)
    assert registered == f"keras_norm>{member.cls.__name__}"
    inputs = keras.Input(SHAPE[1:])
    layer = member.build((None, *SHAPE[1:]))
    model = keras.Model(inputs, layer(inputs))
    x = draw()
    expected = output_of(model, x)

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(output_of(reloaded, x), expected)

    model.save_weights(tmp_path / "model.weights.h5")
    fresh = keras.models.clone_model(model)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(output_of(fresh, x), expected)


@each_member
@pytest.mark.parametrize(
    "bad", [{"colour": 3}, {"axis": 0}, {"axis": 1.5}, {"axis": True}]
)
def test_bad_arguments_are_named(name, bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        MEMBERS[name].cls(**{**MEMBERS[name].kwargs, **bad})


@each_normalizer
@pytest.mark.parametrize("epsilon", [-1e-3, float("nan"), "small", None])
def test_a_bad_epsilon_is_named(name, epsilon):
    with pytest.raises(ValueError, match=f"epsilon={epsilon!r}"):
        MEMBERS[name].cls(**{**MEMBERS[name].kwargs, "epsilon": epsilon})


@each_batch_member
@pytest.mark.parametrize("momentum", [-0.1, 1.1, "fast"])
def test_a_bad_momentum_is_named(name, momentum):
    with pytest.raises(ValueError, match=f"momentum={momentum!r}"):
        MEMBERS[name].cls(**{**MEMBERS[name].kwargs, "momentum": momentum})


@each_member
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3,), -1), ((2, 5, 3), 3), ((2, 5, 3), -3), ((2, 5, None), -1)],
)
def test_a_bad_input_shape_is_named(name, shape, axis):
    member = MEMBERS[name]
    with pytest.raises(ValueError, match="Received: .*input_shape="):
        member.cls(**{**member.kwargs, "axis": axis}).build(shape)


@each_member
def test_another_number_of_channels_is_refused(name):
    layer = MEMBERS[name].build(SHAPE)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(draw((2, 5, 7, 4)))


@each_batch_member
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")],
)
def test_moving_moments_are_float32_or_wider(name, policy, dtype):
    layer = MEMBERS[name].build(SHAPE, dtype=policy)
    assert {v.dtype for v in layer.non_trainable_variables} == {dtype}


@each_batch_member
def test_not_trainable_means_inference(name):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    layer.trainable = False
    before = weights_of(layer)
    x = draw()
    expected = member.expected(x, before, training=False)
    assert_close(layer(x, training=True), expected)
    for weight, value in weights_of(layer).items():
        np.testing.assert_array_equal(value, before[weight])


@each_batch_member
def test_moving_moments_follow_the_batch(name):
    member = MEMBERS[name]
    layer = member.build(SHAPE, momentum=0.7, dtype="float64")
    before = weights_of(layer)
    x = draw(dtype="float64")
    layer(x, training=True)
    after = weights_of(layer)
    if "center_weight" in before:
        level = reference.statistic(
            member.oracle_kwargs.get("center_statistic", "mean"), x, None
        )
        x = x + before["center_weight"] * level
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    assert_close(
        after["moving_mean"],
        reference.moving(before["moving_mean"], mean, 0.7),
        rtol=1e-6,
    )
    assert_close(
        after["moving_variance"],
        reference.moving(before["moving_variance"], variance, 0.7),
        rtol=1e-6,
    )


@each_batch_member
def test_a_large_mean_costs_no_digits(name):
    member = MEMBERS[name]
    generator = np.random.default_rng(4)
    x = generator.normal(1e3, 1.0, (8, 16, 16, 3)).astype("float32")
    layer = member.build(x.shape, momentum=0.0)
    layer(x, training=True)
    if name == "bn":
        variance = x.astype("float64").var((0, 1, 2))
        assert_close(weights_of(layer)["moving_variance"], variance, 1e-3)
    layer = member.build(x.shape)
    expected = member.expected(x, weights_of(layer), training=True)
    assert_close(layer(x, training=True), expected, rtol=1e-3)
