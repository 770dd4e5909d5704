"""Sources of data give the same statistics as one array."""

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.data import batches as data_lib

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(2.0, size=(23, 5, 3)).astype("float32")
Y = np.arange(23)


def single():
    return keras.Sequential(
        [keras.Input((5, 3), name="x"), keras.layers.BatchNormalization()]
    )


def batches(*arrays, size=4):
    for start in range(0, 23, size):
        found = tuple(array[start : start + size] for array in arrays)
        yield found if len(found) > 1 else found[0]


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part]


class Endless(Sequence):
    @property
    def num_batches(self):
        return None


def tensorflow_data(labels):
    tf = pytest.importorskip("tensorflow")
    source = (X, Y) if labels else X
    return tf.data.Dataset.from_tensor_slices(source)


def torch_loader(labels):
    torch = pytest.importorskip("torch")
    arrays = [torch.from_numpy(X), *([torch.from_numpy(Y)] if labels else [])]
    dataset = torch.utils.data.TensorDataset(*arrays)
    return torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True)


SOURCES = {
    "array": lambda: X,
    "float64": lambda: X.astype("float64"),
    "list": lambda: X.tolist(),
    "list of examples": lambda: list(X),
    "tensor": lambda: keras.ops.convert_to_tensor(X),
    "dict": lambda: {"x": X},
    "inputs and labels": lambda: (X, Y),
    "list of batches": lambda: list(batches(X)),
    "list of pairs": lambda: list(batches(X, Y)),
    "generator": lambda: batches(X),
    "generator of triples": lambda: batches(X, Y, Y),
    "generator of dicts": lambda: ({"x": x} for x in batches(X)),
    "PyDataset": Sequence,
    "tf.data": lambda: tensorflow_data(False).batch(4),
    "tf.data, labels": lambda: tensorflow_data(True).shuffle(23).batch(4),
    "DataLoader": lambda: torch_loader(False),
    "DataLoader, labels": lambda: torch_loader(True),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name):
    new, report = keras_norm.recalibrate(single(), SOURCES[name]())
    assert report.num_examples == 23
    mean, variance = (
        keras.ops.convert_to_numpy(w) for w in new.layers[-1].weights[2:]
    )
    values = X.astype("float64").reshape(-1, 3)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, values.var(0), rtol=1e-6)


def several():
    a, b = keras.Input((5, 3), name="a"), keras.Input((2,), name="b")
    norms = [keras.layers.BatchNormalization(name=f"norm_{n}") for n in "ab"]
    return keras.Model([a, b], [norms[0](a), norms[1](b)])


def test_several_inputs():
    b = np.random.default_rng(1).normal(size=(23, 2))
    sources = (
        [X, b],
        (X, b),
        {"b": b, "a": X},
        list(batches(X, b)),
        (({"a": x, "b": y}, 0) for x, y in batches(X, b)),
    )
    for data in sources:
        new, _ = keras_norm.recalibrate(several(), data)
        mean = keras.ops.convert_to_numpy(new.get_layer("norm_b").moving_mean)
        np.testing.assert_allclose(mean, b.mean(0), rtol=1e-5, atol=1e-7)


def test_labels_or_images_of_integers_are_cast():
    images = np.arange(240, dtype="uint8").reshape(4, 4, 5, 3)
    model = keras.Sequential(
        [keras.Input((4, 5, 3)), keras.layers.BatchNormalization()]
    )
    new, _ = keras_norm.recalibrate(model, images)
    mean = keras.ops.convert_to_numpy(new.layers[-1].moving_mean)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="inputs of text")
@pytest.mark.parametrize("kind", ["str", "bytes", "object", "tf.data"])
def test_text_of_any_dtype(kind):
    text = np.array([["a"], ["b"], ["a"], ["c"]])
    lookup = keras.layers.StringLookup(
        vocabulary=["a", "b", "c"], output_mode="one_hot"
    )
    inputs = keras.Input((1,), dtype="string")
    norm = keras.layers.BatchNormalization()
    model = keras.Model(inputs, norm(lookup(inputs)))
    if kind == "tf.data":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(text).batch(3)
    else:
        data = text.astype(kind)
    new, _ = keras_norm.recalibrate(model, data)
    mean = keras.ops.convert_to_numpy(new.layers[-1].moving_mean)
    np.testing.assert_allclose(mean, [0, 0.5, 0.25, 0.25])


def test_missing_channel_axis_is_added():
    model = keras.Sequential(
        [keras.Input((4, 5, 1)), keras.layers.BatchNormalization()]
    )
    new, _ = keras_norm.recalibrate(model, X[:, :4, 0:1].repeat(5, 2))
    mean = keras.ops.convert_to_numpy(new.layers[-1].moving_mean)
    np.testing.assert_allclose(mean, X[:, :4, 0].mean(), rtol=1e-5)


def endless():
    while True:
        yield X


class EndlessBatches:
    def __iter__(self):
        return endless()


def endless_dataset():
    tf = pytest.importorskip("tensorflow")
    spec = tf.TensorSpec((None, 5, 3))
    source = tf.data.Dataset.from_generator(
        lambda: batches(X), output_signature=spec
    )
    # TensorFlow knows the cardinality of `repeat`, but not of `filter`.
    return source.repeat().filter(lambda x: True)


def test_data_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(data_lib, "MAX_ITERATOR_BYTES", 10 * X.nbytes)
    monkeypatch.setattr(data_lib, "MAX_EXAMPLES", 50)
    b = np.zeros((23, 2))
    cases = [
        (single(), endless(), "read once .* itertools.islice"),
        (single(), Endless(), "never ends"),
        (single(), EndlessBatches(), "unknown length has more than 50 ex"),
        (single(), endless_dataset(), "take.number.*assert_cardinality"),
        (single(), iter([]), "no batches"),
        (single(), [X[0], X[1, :4]], "lacks the batch axis"),
        (single(), "images.npz", "keras-norm recalibrate"),
        (single(), {"a": X, "b": X}, "array for each input of the model, 'x'"),
        (single(), np.array([["a"] * 5] * 3), "wrong shape|array of numbers"),
        (single(), [object()], "array of numbers"),
        (several(), X, "2 inputs, 'a', 'b'"),
        (several(), [X, b[:5]], "different numbers of examples"),
        (several(), {"a": X}, "array for each input"),
    ]
    if BACKEND == "tensorflow":
        cases += [
            (single(), tensorflow_data(True).batch(4).repeat(), "never ends"),
            (single(), tensorflow_data(True), "lacks the batch axis"),
        ]
    for model, data, message in cases:
        with pytest.raises(keras_norm.ConversionError, match=message) as error:
            keras_norm.recalibrate(model, data)
        assert "\n" not in str(error.value)
    with pytest.raises(keras_norm.ConversionError, match="has its own batches"):
        keras_norm.recalibrate(single(), Sequence(), batch_size=4)
