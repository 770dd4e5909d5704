"""Masks and casts that Keras records by itself, in converted models."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_norm
import keras_norm_cli
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.conversion import small_models

STEPS, FEATURES = 6, 4


@keras.saving.register_keras_serializable(package="keras_norm_tests")
class LoudSteps(layers.Layer):
    """Masks quiet positions, by several operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return inputs * 2.0

    def compute_mask(self, inputs, previous_mask=None):
        return ops.sum(ops.abs(inputs), axis=-1) > 1.0


PRODUCERS = {
    "masking": (lambda: layers.Masking(), "float32"),
    "cast": (lambda: layers.Masking(), "float64"),
    "embedding": (
        lambda: layers.Embedding(9, FEATURES, mask_zero=True),
        "int32",
    ),
    "operations": (LoudSteps, "float32"),
}
CONSUMERS = {
    "lstm": lambda: layers.LSTM(3, return_sequences=True),
    "gru": lambda: layers.GRU(3),
    "rnn": lambda: layers.RNN(layers.LSTMCell(3)),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(3)),
    "time_distributed": lambda: layers.TimeDistributed(layers.Dense(3)),
    "dense": lambda: layers.Dense(3),
    "dropout": lambda: layers.Dropout(0.5),
    "pooling": lambda: layers.GlobalAveragePooling1D(),
}


def stack(producer="masking", consumer="lstm"):
    """The layers, without an input."""
    return [
        PRODUCERS[producer][0](),
        layers.BatchNormalization(name="bn"),
        CONSUMERS[consumer](),
        layers.Dense(2, name="head"),
    ]


def entry(producer):
    shape = (STEPS,) if producer == "embedding" else (STEPS, FEATURES)
    return keras.Input(shape, dtype=PRODUCERS[producer][1])


def apply(parts, x):
    for part in parts:
        x = part(x)
    return x


def sequential(producer, consumer="lstm"):
    return keras.Sequential([entry(producer), *stack(producer, consumer)])


def functional(producer, consumer="lstm"):
    x = entry(producer)
    return keras.Model(x, apply(stack(producer, consumer), x))


def built_later(producer):
    model = keras.Sequential(stack(producer))
    dtype = PRODUCERS[producer][1]
    model(np.ones(entry(producer).shape[1:], dtype)[None])
    return model


def sequential_inside(producer):
    x = entry(producer)
    head, *rest = stack(producer)
    inner = keras.Sequential([entry(producer), head, rest[0]], name="inner")
    return keras.Model(x, apply([inner, *rest[1:]], x))


def functional_inside(producer):
    x = entry(producer)
    head, *rest = stack(producer)
    inner = keras.Model(x, rest[0](head(x)), name="inner")
    return keras.Sequential([entry(producer), inner, *rest[1:]])


def sequential_in_sequential(producer):
    head, *rest = stack(producer)
    inner = keras.Sequential([head, rest[0]], name="inner")
    return keras.Sequential([entry(producer), inner, *rest[1:]])


def shared_inside(producer):
    left, right = entry(producer), entry(producer)
    inner = keras.Sequential([entry(producer), *stack(producer)])
    x = layers.Add()([inner(left), inner(right)])
    x = layers.BatchNormalization(name="last")(x)
    return keras.Model([left, right], layers.LSTM(2)(x))


FRAMES = (
    sequential,
    functional,
    built_later,
    sequential_inside,
    functional_inside,
    sequential_in_sequential,
    shared_inside,
)


def explicit_mask(producer):
    x = entry(producer)
    embedding, norm, consumer, head = stack(producer)
    mask = embedding.compute_mask(x)
    y = norm(embedding(x), mask=mask)
    return keras.Model(x, head(consumer(y, mask=mask)))


def attention(producer):
    x = entry(producer)
    embedding, norm, consumer, head = stack(producer, "pooling")
    y = norm(embedding(x))
    y = layers.MultiHeadAttention(2, 3)(y, y)
    y = layers.BatchNormalization(name="last")(y)
    return keras.Model(x, head(consumer(y)))


def two_inputs(producer):
    x = [entry(producer), entry(producer)]
    embedding, *rest = stack(producer)
    y = layers.Add()([embedding(each) for each in x])
    return keras.Model(x, apply(rest, y))


def draw(model, seed=0):
    """Inputs of which some steps are masked, at the end and between."""
    generator = np.random.default_rng(seed)

    def values(x):
        dtype = keras.backend.standardize_dtype(x.dtype)
        shape = (3, *x.shape[1:])
        array = generator.normal(size=shape)
        if dtype == "int32":
            array = generator.integers(1, 9, size=shape)
        array[0, -2:] = array[1, 3] = 0
        return array.astype(dtype)

    return keras.tree.map_structure(values, small_models._inputs(model))


def check(model, tmp_path):
    """The conversion to the same function, before and after saving."""
    small_models.fill(model)
    inputs = draw(model)
    expected = to_numpy(model(inputs))
    converted, report = keras_norm.convert(model, "frozen")
    assert type(converted) is type(model)
    assert report.function == "exact"
    assert_array_equal(converted(inputs), expected)
    converted.save(tmp_path / "converted.keras")
    again = keras.saving.load_model(tmp_path / "converted.keras")
    assert_array_equal(again(inputs), expected)
    model.save(tmp_path / "source.keras")
    source = keras.saving.load_model(tmp_path / "source.keras")
    converted, _ = keras_norm.convert(source, "bn")
    assert type(converted) is type(model)
    assert_array_equal(converted(inputs), expected)


# https://github.com/tensorflow/tensorflow/issues/31638
# https://github.com/keras-team/keras/issues/10763
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.__name__)
def test_masked_models_keep_their_function(frame, tmp_path):
    check(frame("masking"), tmp_path)


@pytest.mark.parametrize("producer", ["cast", "embedding", "operations"])
def test_every_mask_producer(producer, tmp_path):
    check(sequential(producer), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("producer", ["cast", "embedding", "operations"])
@pytest.mark.parametrize("frame", FRAMES[1:], ids=lambda f: f.__name__)
def test_every_mask_producer_in_every_model(frame, producer, tmp_path):
    check(frame(producer), tmp_path)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_mask_consumers_receive_the_mask(consumer, tmp_path):
    check(sequential("masking", consumer), tmp_path)


@pytest.mark.parametrize(
    "frame", [explicit_mask, attention, two_inputs], ids=lambda f: f.__name__
)
def test_masks_in_a_functional_model(frame, tmp_path):
    check(frame("embedding"), tmp_path)


# Keras warns that a nested model takes no mask; its layers do get it.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("make", [keras.Sequential, None])
def test_a_mask_from_outside_a_nested_model(make, tmp_path):
    head, *rest = stack("masking")
    x = keras.Input((STEPS, FEATURES))
    inner = keras.Model(x, apply(rest, x)) if make is None else make([x, *rest])
    check(keras.Sequential([entry("masking"), head, inner]), tmp_path)


# The mask decides what the moments are of. keras-team/keras#7466
def test_training_counts_unmasked_steps():
    model = sequential("masking")
    small_models.fill(model)
    inputs = draw(model)
    converted, _ = keras_norm.convert(model, "bn", momentum=0.5)
    norm = converted.get_layer("bn")
    before = [to_numpy(v) for v in (norm.moving_mean, norm.moving_variance)]
    converted(inputs, training=True)
    valid = inputs[np.any(inputs != 0, axis=-1)].astype("float64")
    moments = valid.mean(axis=0), valid.var(axis=0)
    after = norm.moving_mean, norm.moving_variance
    for old, moment, new in zip(before, moments, after, strict=True):
        assert_allclose(new, 0.5 * old + 0.5 * moment, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["frn", "gn", "rbn", "eval_norm", "ln"])
def test_other_norms_pass_the_mask_on(norm):
    model = sequential("masking", "gru")
    small_models.fill(model)
    converted, _ = keras_norm.convert(model, norm)
    inputs = draw(model)
    # A masked step at the end holds nothing that the GRU may see.
    cut = inputs.copy()
    inputs[0, -2:] = 0
    hidden = converted.layers[1](converted.layers[0](inputs[:1]))
    mask = np.any(inputs[:1] != 0, axis=-1)
    assert_array_equal(converted.layers[0].compute_mask(inputs[:1]), mask)
    expected = converted.layers[2](hidden[:, :-2], mask=mask[:, :-2])
    expected = converted.layers[3](expected)
    assert_allclose(converted(cut[:1]), expected, rtol=1e-5, atol=1e-6)


def test_a_recorded_cast_does_not_hide_the_norm_before_a_relu():
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Masking(),
            layers.BatchNormalization(dtype="mixed_bfloat16", name="bn"),
            layers.ReLU(dtype="float32", name="relu"),
            layers.Dense(2),
        ]
    )
    converted, report = keras_norm.convert(model, "frn")
    assert report.num_thresholds == 1
    assert isinstance(converted.get_layer("relu"), keras_norm.TLU)
    assert report.replaced[0].activations[0].becomes == "TLU"


def test_a_cast_to_integers_hides_it():
    x = keras.Input((4,))
    y = layers.BatchNormalization()(x)
    y = ops.relu(ops.cast(y, "int32"))
    report = keras_norm.plan_conversion(keras.Model(x, y), "frn")
    assert report.num_thresholds == 0


def test_plan_and_inspection_of_a_masked_sequential(tmp_path, capsys):
    model = sequential("masking")
    report = keras_norm.plan_conversion(model, "frn")
    assert [entry.path for entry in report.replaced] == ["bn"]
    model.save(tmp_path / "masked.keras")
    path = str(tmp_path / "masked.keras")
    assert keras_norm_cli.main(["inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [e["path"] for e in found["batch_normalizations"]] == ["bn"]
    out = str(tmp_path / "out.keras")
    command = ["convert", path, out, "--to=sync_bn", "--verify", "--json"]
    assert keras_norm_cli.main(command) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["largest"] == 0.0
    inputs = draw(model)
    assert_array_equal(keras.saving.load_model(out)(inputs), model(inputs))


def test_norm_scope_makes_a_masked_sequential():
    model = sequential("masking")
    small_models.fill(model)
    with keras_norm.norm_scope("bn") as scope:
        born = sequential("masking")
    assert scope.names == ["bn"]
    born.set_weights(model.get_weights())
    inputs = draw(model)
    assert_array_equal(born(inputs), model(inputs))


def test_verifying_leaves_the_states_of_a_model_alone():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(3, STEPS, FEATURES)),
            layers.Masking(),
            layers.BatchNormalization(name="bn"),
            layers.LSTM(3, stateful=True),
        ]
    )
    small_models.fill(model)
    before = [to_numpy(v) for v in model.variables]
    _, report = keras_norm.convert(model, "bn", verify=True)
    assert report.comparisons[0].largest == 0.0
    for old, new in zip(before, model.variables, strict=True):
        assert_array_equal(new, old)
