"""Layers inside `TimeDistributed` fold like those outside."""

import keras
import pytest
from keras import layers

from tests.folding.models import chain
from tests.folding.models import check_fold
from tests.folding.models import randomize

pytestmark = pytest.mark.usefixtures("float64")

BatchNorm = layers.BatchNormalization
# Constructors of linear layers with the shape of one position.
LAYERS = {
    "conv1d": (lambda: layers.Conv1D(4, 3, groups=2, padding="same"), (5, 2)),
    "conv2d": (lambda: layers.Conv2D(4, 3, use_bias=False), (5, 4, 2)),
    "separable": (lambda: layers.SeparableConv2D(4, 3), (5, 4, 2)),
    "dense": (lambda: layers.Dense(4), (2,)),
    "einsum": (lambda: layers.EinsumDense("ab,bc->ac", 4), (2,)),
    "transpose": (lambda: layers.Conv1DTranspose(3, 2, strides=2), (5, 2)),
}
WITH_NORM_INSIDE = ("conv1d", "dense", "separable")


def timed(layer, **options):
    return layers.TimeDistributed(layer, **options)


@pytest.mark.parametrize("name", LAYERS)
def test_backward(name):
    make, shape = LAYERS[name]
    norm = timed(BatchNorm()) if name in WITH_NORM_INSIDE else BatchNorm()
    model = chain((3, *shape), timed(make()), norm, layers.Activation("tanh"))
    folded, report = check_fold(model, ["backward"])
    assert len(folded.layers) == len(model.layers) - 1
    assert report.entries[0].into == (model.layers[1].name,)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "transpose"])
def test_forward(name):
    make, shape = LAYERS[name]
    norm = timed(BatchNorm()) if name in WITH_NORM_INSIDE else BatchNorm()
    model = chain((3, *shape), layers.Activation("tanh"), norm, timed(make()))
    _, report = check_fold(model, ["forward"])
    assert report.num_paddings == (name == "conv1d")


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="convolutions of TensorFlow on a CPU need channels last",
)
def test_channels_first():
    conv = layers.Conv2D(4, 3, padding="same", data_format="channels_first")
    model = chain(
        (3, 2, 5, 4), timed(conv), timed(BatchNorm(axis=1)), layers.ReLU()
    )
    check_fold(model, ["backward"])


def test_through_layers_inside_and_between():
    model = chain(
        (3, 6, 6, 2),
        timed(layers.Conv2D(4, 3, activation="relu")),
        timed(layers.Dropout(0.5)),
        timed(BatchNorm()),
        timed(layers.MaxPooling2D(2)),
        timed(layers.Conv2D(3, 2, padding="same")),
        BatchNorm(),
        timed(layers.AveragePooling2D(2)),
        timed(layers.Activation("tanh")),
        timed(BatchNorm()),
        timed(layers.Flatten()),
        timed(layers.Dense(3)),
        layers.LSTM(2),
        positive=True,
    )
    _, report = check_fold(model, ["forward", "backward", "forward"])
    assert report.num_paddings == 1


def test_shared_calls_and_unknown_length():
    inputs = [keras.Input((None, 2), dtype="float64") for _ in range(2)]
    dense, norm = timed(layers.Dense(4)), timed(BatchNorm())
    model = keras.Model(inputs, [layers.ReLU()(norm(dense(x))) for x in inputs])
    check_fold(randomize(model), ["backward"])


def test_norms_that_stay():
    for stack, words in (
        # The factors differ along the axis of positions.
        ((timed(layers.Dense(4)), BatchNorm(axis=1)), "position to position"),
        ((timed(layers.Dense(4, activation="relu")), BatchNorm()), "relu"),
        ((timed(layers.LSTM(4)), timed(BatchNorm())), "TimeDistributed"),
    ):
        shape = (3, 5, 2) if isinstance(stack[0].layer, layers.LSTM) else (3, 2)
        model = chain(shape, *stack, layers.Activation("tanh"))
        _, report = check_fold(model, [None])
        assert words in report.entries[0].reason


def test_selection_names_the_wrapper():
    model = chain(
        (3, 2),
        timed(layers.Dense(4)),
        timed(BatchNorm(), name="first"),
        layers.Activation("tanh"),
        timed(layers.Dense(4)),
        timed(BatchNorm(), name="second"),
    )
    check_fold(model, [None, "backward"], include="second")
    check_fold(model, ["backward"] * 2, include=BatchNorm)
