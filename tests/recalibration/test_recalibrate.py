"""Tests of `keras_norm.recalibrate` against float64 moments in NumPy."""

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.recalibration import activation_cache

LAYERS = keras.layers


@pytest.fixture(autouse=True)
def generator():
    return np.random.default_rng(0)


def draw_weights(model, generator):
    """Assigns random weights and statistics to every layer."""
    for variable in model.variables:
        value = generator.normal(size=variable.shape) * 0.5
        if variable.name in ("gamma", "moving_variance", "moving_stddev"):
            value = 0.5 + np.abs(value)
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(value.astype("float32"))
    return model


def moments(*arrays, axis=-1):
    """Returns float64 mean and variance over all values of each channel."""
    rows = [
        np.moveaxis(np.asarray(a, np.float64), axis, -1).reshape(
            -1, np.shape(a)[axis]
        )
        for a in arrays
    ]
    rows = np.concatenate(rows)
    return rows.mean(0), rows.var(0)


def statistics(layer):
    return tuple(
        keras.ops.convert_to_numpy(w).astype(np.float64)
        for w in (layer.moving_mean, layer.moving_variance)
    )


def inference_inputs(model, layer, x):
    """Runs the graph up to a layer's first input."""
    inputs = layer._inbound_nodes[0].input_tensors[0]
    part = keras.Model(model.input, inputs)
    x = keras.ops.convert_to_tensor(x, "float32")
    return keras.ops.convert_to_numpy(part(x, training=False))


def assert_moments(layer, expected, tolerance=1e-5):
    mean, variance = statistics(layer)
    spread = np.sqrt(expected[1] + layer.epsilon)
    assert np.max(np.abs(mean - expected[0]) / spread) < tolerance
    assert np.max(np.abs(variance - expected[1]) / spread**2) < tolerance


def assert_same_statistics(model, other, tolerance=1e-6):
    for weight, expected in zip(
        model.get_weights(), other.get_weights(), strict=True
    ):
        scale = np.abs(expected) + 1
        assert np.max(np.abs(weight - expected) / scale) < tolerance


def residual_network():
    """BN after convolution, in two branches, behind dropout and at the end."""
    inputs = keras.Input((9, 7, 3))
    x = LAYERS.Conv2D(5, 3, strides=2, use_bias=False)(inputs)
    x = LAYERS.BatchNormalization(name="stem")(x)
    x = LAYERS.ReLU()(x)
    left = LAYERS.BatchNormalization(name="left")(LAYERS.Conv2D(4, 1)(x))
    right = keras_norm.BatchNormalization(name="right", trainable=False)(
        LAYERS.Conv2D(4, 1)(LAYERS.Dropout(0.5)(x)), training=False
    )
    x = keras.ops.relu(left + right)
    x = LAYERS.GlobalAveragePooling2D()(x)
    x = LAYERS.BatchNormalization(name="pooled", scale=False)(
        LAYERS.Dense(6)(x)
    )
    return keras.Model(inputs, LAYERS.Dense(2)(x), name="network")


def test_every_layer_gets_moments_of_its_inference_input(generator):
    model = draw_weights(residual_network(), generator)
    before = model.get_weights()
    x = generator.normal(size=(37, 9, 7, 3))
    new, report = keras_norm.recalibrate(model, x)
    for name in ("stem", "left", "right", "pooled"):
        layer = new.get_layer(name)
        assert_moments(layer, moments(inference_inputs(new, layer, x)))
    paths = {entry.path for entry in report.recalibrated}
    assert paths == {"stem", "left", "right", "pooled"}
    # The two branches share a pass, and the old model stays as it is.
    assert report.num_passes == 3
    assert report.num_examples == 37
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert "4 recalibrated" in str(report)
    assert '"num_recalibrated": 4' in report.to_json()


def test_result_does_not_depend_on_batches_or_order(generator):
    model = draw_weights(residual_network(), generator)
    x = generator.normal(size=(64, 9, 7, 3))
    expected, _ = keras_norm.recalibrate(model, x)
    for batch_size in (1, 7, 64):
        new, _ = keras_norm.recalibrate(model, x, batch_size=batch_size)
        assert_same_statistics(new, expected)
    new, _ = keras_norm.recalibrate(model, generator.permutation(x))
    assert_same_statistics(new, expected)


def test_passes_start_again_if_activations_are_too_large(
    generator, monkeypatch
):
    model = draw_weights(residual_network(), generator)
    x = generator.normal(size=(40, 9, 7, 3))
    expected, _ = keras_norm.recalibrate(model, x)
    for limit in (0, 5000, 30000):
        monkeypatch.setattr(activation_cache, "MAX_BYTES", limit)
        new, report = keras_norm.recalibrate(model, x, batch_size=9)
        assert_same_statistics(new, expected)
        assert report.num_passes == 3


def test_large_mean_with_small_spread(generator):
    model = keras.Sequential(
        [keras.Input((4,)), LAYERS.BatchNormalization(name="bn")]
    )
    x = (1e3 + generator.normal(size=(5000, 4))).astype("float32")
    new, _ = keras_norm.recalibrate(model, x, batch_size=7)
    mean, variance = statistics(new.layers[0])
    expected = moments(x)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-7)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-6)


def test_nested_shared_and_dict_models(generator):
    image = keras.Input((5, 4, 3), name="image")
    x = LAYERS.BatchNormalization(name="inner")(LAYERS.Conv2D(4, 2)(image))
    encoder = keras.Model(image, LAYERS.ReLU()(x), name="encoder")
    inputs = {
        "a": keras.Input((5, 4, 3), name="a"),
        "b": keras.Input((5, 4, 3), name="b"),
    }
    shared = LAYERS.BatchNormalization(name="shared")
    features = [
        LAYERS.Flatten()(shared(encoder(inputs["a"]))),
        LAYERS.Flatten()(shared(encoder(inputs["b"]) * 2.0)),
    ]
    model = keras.Model(inputs, LAYERS.Concatenate()(features))
    draw_weights(model, generator)
    data = {
        key: generator.normal(size=(11, 5, 4, 3)).astype("float32")
        for key in "ab"
    }
    new, report = keras_norm.recalibrate(model, data, batch_size=4)
    assert {e.path for e in report.entries} == {"encoder/inner", "shared"}
    encoder, shared = new.get_layer("encoder"), new.get_layer("shared")
    inner = encoder.get_layer("inner")
    to_inner = keras.Model(encoder.input, inner.input)
    seen = [keras.ops.convert_to_numpy(to_inner(data[key])) for key in "ab"]
    assert_moments(inner, moments(*seen))
    a, b = (keras.ops.convert_to_numpy(encoder(data[key])) for key in "ab")
    assert_moments(shared, moments(a, b * 2))


def test_layer_behind_itself_converges(generator):
    inputs = keras.Input((3,))
    norm = LAYERS.BatchNormalization(name="norm")
    dense = LAYERS.Dense(3, activation="tanh")
    x = norm(dense(norm(inputs)))
    model = draw_weights(keras.Model(inputs, x), generator)
    data = generator.normal(2.0, size=(50, 3)).astype("float32")
    new, report = keras_norm.recalibrate(model, data)
    norm = new.get_layer("norm")
    dense = next(x for x in new.layers if isinstance(x, LAYERS.Dense))
    second = keras.ops.convert_to_numpy(dense(norm(data)))
    assert_moments(norm, moments(data, second))
    assert report.entries[0].num_passes > 1
    assert not report.notes


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("cls", ["keras", "keras_norm"])
def test_ranks_and_channel_axes(rank, cls, generator):
    shape = (2, 5, 3, 4)[: rank - 1]
    make = {
        "keras": LAYERS.BatchNormalization,
        "keras_norm": keras_norm.BatchNormalization,
    }[cls]
    model = keras.Sequential([keras.Input(shape), make(axis=1)])
    x = generator.normal(size=(9, *shape))
    new, _ = keras_norm.recalibrate(model, x)
    assert_moments(new.layers[0], moments(x.astype("float32"), axis=1), 1e-6)


@pytest.mark.parametrize("cls", ["keras", "keras_norm"])
def test_masked_positions_do_not_count(cls, generator):
    make = {
        "keras": LAYERS.BatchNormalization,
        "keras_norm": keras_norm.BatchNormalization,
    }[cls]
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            LAYERS.Masking(),
            make(name="first"),
            LAYERS.Dense(2),
            make(name="second"),
        ]
    )
    draw_weights(model, generator)
    x = generator.normal(size=(20, 6, 3)).astype("float32")
    present = np.arange(6) < generator.integers(1, 6, size=(20, 1))
    x[~present] = 0
    new, report = keras_norm.recalibrate(model, x, batch_size=8)
    first, dense, second = new.layers[-3:]
    assert_moments(first, moments(x[present]))
    hidden = keras.ops.convert_to_numpy(dense(first(x)))
    assert_moments(second, moments(hidden[present]))
    assert report.entries[0].num_values == present.sum()


def test_prior_is_the_law_of_total_variance(generator):
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), LAYERS.BatchNormalization()]
    )
    draw_weights(model, generator)
    old_mean, old_variance = statistics(model.layers[0])
    x = generator.normal(1.0, 2.0, size=(8, 6, 5, 3))
    new, _ = keras_norm.recalibrate(model, x, prior=24)
    mean, variance = moments(x.astype("float32"))
    mixed = 0.75 * old_mean + 0.25 * mean
    spread = 0.75 * (old_variance + (old_mean - mixed) ** 2)
    spread += 0.25 * (variance + (mean - mixed) ** 2)
    assert_moments(new.layers[0], (mixed, spread), 1e-6)


def test_batch_method_normalizes_by_batch_moments(generator):
    model = draw_weights(residual_network(), generator)
    x = generator.normal(size=(24, 9, 7, 3)).astype("float32")
    exact, _ = keras_norm.recalibrate(model, x)
    new, report = keras_norm.recalibrate(
        model, x, method="batch", batch_size=24
    )
    assert report.num_passes == 1
    assert_same_statistics(new, exact, 1e-5)
    new, _ = keras_norm.recalibrate(model, x, method="batch", batch_size=8)
    # By hand for the second layer: each batch is normalized by itself.
    conv = next(s for s in new.layers if isinstance(s, LAYERS.Conv2D))
    left = new.get_layer("left")
    gamma, beta = (
        keras.ops.convert_to_numpy(w)
        for w in (new.get_layer("stem").gamma, new.get_layer("stem").beta)
    )
    kernel, bias = (
        keras.ops.convert_to_numpy(w)
        for w in left.input._keras_history.operation.weights
    )
    seen = []
    for start in (0, 8, 16):
        y = keras.ops.convert_to_numpy(conv(x[start : start + 8]))
        mean, variance = moments(y)
        y = gamma * (y - mean) / np.sqrt(variance + 1e-3) + beta
        seen.append(np.maximum(y, 0) @ kernel[0, 0] + bias)
    assert_moments(left, moments(*seen))


def test_batch_renormalization_and_correction(generator):
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras_norm.BatchNormalization(renorm=True, epsilon=0.1),
        ]
    )
    x = generator.normal(3.0, 2.0, size=(10, 4, 3)).astype("float32")
    new, _ = keras_norm.recalibrate(model, x)
    layer = new.layers[0]
    mean, variance = moments(x)
    assert_moments(layer, (mean, variance), 1e-6)
    for weight, expected in (
        (layer.renorm_mean, mean),
        (layer.renorm_stddev, np.sqrt(variance + 0.1)),
        (layer.moving_stddev, np.sqrt(variance + 0.1)),
    ):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(weight), expected, rtol=1e-6
        )


@keras.saving.register_keras_serializable(package="test_recalibrate")
def plane_max(x, axis, keepdims):
    return keras.ops.max(x, axis=axis, keepdims=keepdims)


@pytest.mark.parametrize("statistic", ["mean", "std", plane_max])
def test_rbn_measures_centered_features(statistic, generator):
    model = keras.Sequential(
        [
            keras.Input((5, 4, 3)),
            keras_norm.RBN(center_statistic=statistic),
        ]
    )
    draw_weights(model, generator)
    x = generator.normal(1.0, size=(10, 5, 4, 3)).astype("float32")
    new, _ = keras_norm.recalibrate(model, x, batch_size=4)
    layer = new.layers[0]
    function = {"mean": np.mean, "std": np.std}.get(statistic, np.max)
    planes = function(x.astype(np.float64), axis=(1, 2), keepdims=True)
    weight = keras.ops.convert_to_numpy(layer.center_weight)
    assert_moments(layer, moments(x + weight * planes), 1e-6)


def test_eval_norm_mixes_so_that_it_evaluates_as_it_trains(generator):
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), keras_norm.EvalNorm(epsilon=1e-3)]
    )
    # Images of different brightness and contrast, in batches of 2.
    x = generator.normal(size=(60, 6, 5, 3))
    x = x * generator.uniform(0.5, 2, size=(60, 1, 1, 3))
    x = (x + generator.normal(size=(60, 1, 1, 3))).astype("float32")
    new, report = keras_norm.recalibrate(model, x, batch_size=2)
    layer = new.layers[0]
    assert_moments(layer, moments(x), 1e-6)

    def gap(a, b):
        """Mean squared difference of evaluation and training, in NumPy."""
        mean, variance = moments(x)
        wide = x.astype(np.float64)
        own, spread = wide.mean((1, 2)), wide.var((1, 2))
        m = a * own + (1 - a) * mean
        v = b * spread + (1 - b) * variance + a * (1 - a) * (own - mean) ** 2
        evaluated = (wide - m[:, None, None]) / np.sqrt(v + 1e-3)[:, None, None]
        trained = []
        for i in range(0, 60, 2):
            center, power = moments(wide[i : i + 2])
            trained.append((wide[i : i + 2] - center) / np.sqrt(power + 1e-3))
        return np.mean((evaluated - np.concatenate(trained)) ** 2)

    a, b = report.entries[0].mean_mix, report.entries[0].variance_mix
    assert 0.2 < a < 0.9 and 0.1 < b < 0.9
    best = gap(a, b)
    assert best < 0.8 * gap(0, 0)
    for da, db in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02), (0.1, -0.1)):
        assert gap(a + da, b + db) > best
    assert float(keras.ops.convert_to_numpy(layer.mean_mix)) == pytest.approx(a)
    # With all data in a batch, training uses the population's moments.
    _, report = keras_norm.recalibrate(model, x, batch_size=60)
    assert report.entries[0].mean_mix < 1e-6
    assert report.entries[0].variance_mix < 1e-6


def test_include_keeps_the_other_statistics(generator):
    model = draw_weights(residual_network(), generator)
    x = generator.normal(size=(8, 9, 7, 3))
    new, report = keras_norm.recalibrate(model, x, include=["left", "pooled"])
    assert {entry.path for entry in report.kept} == {"stem", "right"}
    for name in ("stem", "right"):
        for got, old in zip(
            statistics(new.get_layer(name)),
            statistics(model.get_layer(name)),
            strict=True,
        ):
            np.testing.assert_array_equal(got, old)
    layer = new.get_layer("pooled")
    assert_moments(layer, moments(inference_inputs(new, layer, x)))


def test_half_precision_model(generator):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = draw_weights(residual_network(), generator)
    x = generator.normal(size=(8, 9, 7, 3))
    new, _ = keras_norm.recalibrate(model, x)
    for name in ("stem", "pooled"):
        layer = new.get_layer(name)
        inputs = inference_inputs(new, layer, x).astype("float32")
        assert_moments(layer, moments(inputs), 1e-4)


def one_layer(**kwargs):
    return keras.Sequential(
        [
            keras.Input((3,), name="x"),
            LAYERS.BatchNormalization(name="bn", **kwargs),
        ],
        name="small",
    )


class Composite(LAYERS.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = LAYERS.BatchNormalization(name="hidden")

    def call(self, x):
        return self.norm(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = LAYERS.BatchNormalization()

    def call(self, x):
        return self.norm(x)


def test_one_line_errors(generator):
    x = np.ones((4, 3))
    plain = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2)])
    hidden = keras.Sequential([keras.Input((3,)), Composite(name="block")])
    bad = keras.Sequential(
        [
            keras.Input((3,)),
            LAYERS.Dense(3),
            LAYERS.BatchNormalization(name="b"),
        ]
    )
    bad.layers[0].kernel.assign(np.full((3, 3), np.nan, "float32"))
    code = Subclassed()
    code(x)
    old = one_layer()
    old.layers[0].moving_variance.assign(np.full(3, -1.0, "float32"))
    nan = np.where(np.eye(4, 3) > 0, np.nan, x)
    cases = [
        (lambda: keras_norm.recalibrate(plain, x), "no batch normalization"),
        (lambda: keras_norm.recalibrate(hidden, x), "outside.*block/hidden"),
        (lambda: keras_norm.recalibrate("m.keras", x), "must be a Keras model"),
        (lambda: keras_norm.recalibrate(code, x), "as a Functional or Seq"),
        (lambda: keras_norm.fold(code), "as a Functional or Seq"),
        (lambda: keras_norm.recalibrate(bad, x), "input of 'b' is not finite"),
        (lambda: keras_norm.recalibrate(old, x, prior=1), "prior=0"),
        (lambda: keras_norm.recalibrate(one_layer(), nan), "NaN.*3 of 12"),
        (lambda: keras_norm.recalibrate(one_layer(), x[:, :2]), "wrong shape"),
        (lambda: keras_norm.recalibrate(one_layer(), x[:0]), "no examples"),
        (lambda: keras_norm.recalibrate(one_layer(), []), "no batches"),
        (lambda: keras_norm.recalibrate(one_layer(), None), "must be arrays"),
        (lambda: keras_norm.recalibrate(one_layer(), 3), "must be arrays"),
        (
            lambda: keras_norm.recalibrate(one_layer(), x, method="fast"),
            "method='fast'",
        ),
        (lambda: keras_norm.recalibrate(one_layer(), x, prior=-1), "prior=-1"),
        (
            lambda: keras_norm.recalibrate(one_layer(), x, batch_size=0),
            "batch_size=0",
        ),
        (
            lambda: keras_norm.recalibrate(one_layer(), x, include="b_n"),
            "Did you mean 'bn'",
        ),
    ]
    for call, message in cases:
        with pytest.raises(keras_norm.ConversionError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_variance_correction_divides_by_one_less():
    norm = keras_norm.BatchNormalization(variance_correction=True)
    model = keras.Sequential([keras.Input((2,)), norm])
    x = np.random.default_rng(0).normal(size=(5, 2))
    new, _ = keras_norm.recalibrate(model, x)
    np.testing.assert_allclose(
        new.layers[-1].moving_variance, x.var(axis=0, ddof=1), rtol=1e-6
    )
