"""Every linear layer takes the factors of its output and of its input."""

import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.folding.models import chain
from tests.folding.models import check_fold

BatchNorm = layers.BatchNormalization
# Constructors of linear layers with the shape of their input, by name.
LAYERS = {
    "conv1d": (lambda: layers.Conv1D(6, 3, groups=2), (9, 4)),
    "conv1d_causal": (
        lambda: layers.Conv1D(5, 3, padding="causal", dilation_rate=2),
        (9, 4),
    ),
    "conv2d": (lambda: layers.Conv2D(6, (3, 2), use_bias=False), (8, 9, 4)),
    "conv2d_same": (
        lambda: layers.Conv2D(6, (4, 3), padding="same"),
        (8, 7, 4),
    ),
    "conv2d_strided": (
        lambda: layers.Conv2D(6, (4, 3), strides=(3, 2), padding="same"),
        (8, 9, 4),
    ),
    "conv2d_dilated": (
        lambda: layers.Conv2D(
            6, (3, 2), dilation_rate=(1, 3), padding="same", use_bias=False
        ),
        (8, 9, 4),
    ),
    "conv2d_groups": (
        lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
        (8, 9, 4),
    ),
    "conv3d": (lambda: layers.Conv3D(3, 2, padding="same"), (4, 5, 6, 2)),
    "depthwise1d": (
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same"),
        (9, 4),
    ),
    "depthwise2d": (
        lambda: layers.DepthwiseConv2D(
            3, depth_multiplier=3, strides=2, padding="same", use_bias=False
        ),
        (8, 9, 4),
    ),
    "separable1d": (
        lambda: layers.SeparableConv1D(
            5, 3, depth_multiplier=2, padding="same"
        ),
        (9, 4),
    ),
    "separable2d": (
        lambda: layers.SeparableConv2D(5, 3, use_bias=False, padding="same"),
        (8, 9, 4),
    ),
    "dense": (lambda: layers.Dense(5), (4,)),
    "dense_positions": (lambda: layers.Dense(5, use_bias=False), (3, 2, 4)),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (3, 5), bias_axes="d"),
        (3, 4),
    ),
    "einsum_no_bias": (
        lambda: layers.EinsumDense("...x,xy->...y", 5),
        (3, 2, 4),
    ),
    "einsum_heads": (
        lambda: layers.EinsumDense(
            "abc,cde->abde", (None, 2, 5), bias_axes="de"
        ),
        (3, 4),
    ),
    "einsum_right": (
        lambda: layers.EinsumDense("ab...,bc->ac...", 5, bias_axes="c"),
        (4, 3, 2),
    ),
    "transpose1d": (
        lambda: layers.Conv1DTranspose(5, 3, strides=2, use_bias=False),
        (6, 4),
    ),
    "transpose2d": (
        lambda: layers.Conv2DTranspose(5, (4, 3), strides=2, padding="same"),
        (5, 6, 4),
    ),
    "transpose3d": (lambda: layers.Conv3DTranspose(3, 2), (3, 4, 5, 2)),
}
# The offset of a norm before these depends on the position.
FORWARD = [name for name in LAYERS if "transpose" not in name]
CHANNELS_FIRST = {
    "conv1d": lambda **kw: layers.Conv1D(5, 3, padding="same", **kw),
    "conv2d": lambda **kw: layers.Conv2D(6, 3, groups=2, **kw),
    "depthwise": lambda **kw: layers.DepthwiseConv2D(
        3, depth_multiplier=2, padding="same", **kw
    ),
    "separable": lambda **kw: layers.SeparableConv2D(
        5, 3, padding="same", **kw
    ),
    "transpose": lambda **kw: layers.Conv2DTranspose(5, 3, strides=2, **kw),
}


pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", LAYERS)
def test_folds_into_the_layer_before(name):
    make, shape = LAYERS[name]
    axis = 1 if name == "einsum_right" else -1
    model = chain(shape, make(), BatchNorm(axis), layers.Activation("tanh"))
    folded, report = check_fold(model, ["backward"])
    assert report.num_paddings == 0
    assert len(folded.layers) == len(model.layers) - 1


@pytest.mark.parametrize("name", FORWARD)
def test_folds_into_the_layer_behind(name):
    make, shape = LAYERS[name]
    axis = 1 if name == "einsum_right" else -1
    model = chain(shape, BatchNorm(axis), make(), layers.Activation("tanh"))
    _, report = check_fold(model, ["forward"])
    config = model.layers[2].get_config()
    assert report.num_paddings == (config.get("padding", "valid") != "valid")


@pytest.mark.parametrize("name", ["transpose1d", "transpose2d", "transpose3d"])
def test_transposed_convolution_takes_factors_without_offset(name):
    make, shape = LAYERS[name]
    norm = BatchNorm(center=False)
    model = chain(shape, norm, make())
    check_fold(model, [None])
    norm.moving_mean.assign(np.zeros(norm.moving_mean.shape))
    check_fold(model, ["forward"])


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first(name):
    make = CHANNELS_FIRST[name]
    shape = (4, 8) if name == "conv1d" else (4, 8, 9)
    layer = make(data_format="channels_first")
    model = chain(shape, layers.ReLU(), BatchNorm(1), layer, BatchNorm(1))
    try:
        model.predict(np.zeros((1, *shape)), verbose=0)
    except Exception as error:
        pytest.skip(f"not on this backend: {error}"[:80])
    first = None if name == "transpose" else "forward"
    check_fold(model, [first, "backward"])


def test_embedding_takes_the_factors_of_its_output():
    embedding = layers.Embedding(7, 4, mask_zero=True)
    model = chain((3,), embedding, BatchNorm(), layers.LSTM(2), dtype="int32")
    folded, _ = check_fold(model, ["backward"])
    assert len(folded.layers) < len(model.layers)


def test_einsum_dense_with_another_axis_keeps_the_norm():
    layer = layers.EinsumDense("abc,cd->abd", (3, 5), bias_axes="d")
    _, report = check_fold(chain((3, 4), layer, BatchNorm(1)), [None])
    assert "no axis for its channels" in report.kept[0].reason


def test_axis_other_than_the_channels_keeps_the_norm():
    layer = layers.Conv2D(5, 3)
    _, report = check_fold(chain((8, 9, 4), layer, BatchNorm(1)), [None])
    assert "from position to position" in report.kept[0].reason


def test_regularizers_and_constraints_are_left_out():
    layer = layers.Dense(
        5, kernel_regularizer="l2", bias_constraint="non_neg", name="dense"
    )
    folded, report = check_fold(chain((4,), layer, BatchNorm()), ["backward"])
    assert not folded.losses
    assert folded.get_layer("dense").bias_constraint is None
    assert "kernel_regularizer of 'dense'" in report.notes[-1]


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def test_subclasses_and_other_weights_keep_the_norm():
    lora = layers.Dense(5)
    reasons = {}
    for name, layer in (
        ("subclass", Doubled(5)),
        ("lora", lora),
        ("wrapped", layers.SpectralNormalization(layers.Dense(5))),
        ("recurrent", layers.LSTM(5, return_sequences=True)),
    ):
        model = chain((3, 4), layer, BatchNorm())
        if layer is lora:
            layer.enable_lora(2)
        _, report = check_fold(model, [None])
        reasons[name] = report.kept[0].reason
    assert "subclass of Dense" in reasons["subclass"]
    assert "LoRA" in reasons["lora"]
    assert "SpectralNormalization" in reasons["wrapped"]
    assert "LSTM" in reasons["recurrent"]


def test_activation_of_the_layer_before_keeps_the_norm():
    layer = layers.Dense(5, activation="relu", name="dense")
    _, report = check_fold(chain((4,), layer, BatchNorm()), [None])
    assert "activation relu of 'dense'" in report.kept[0].reason


@pytest.mark.parametrize(
    "norm",
    [
        layers.BatchNormalization,
        keras_norm.BatchNormalization,
        keras_norm.FrozenBatchNormalization,
        keras_norm.EvalNorm,
        keras_norm.RBN,
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_every_norm_folds(norm, options):
    model = chain((6, 7, 3), layers.Conv2D(4, 3), norm(**options))
    check_fold(model, ["backward"], tolerance=1e-6)
    model = chain((6, 7, 3), norm(**options), layers.Conv2D(4, 3))
    check_fold(model, ["forward"], tolerance=1e-6)


@pytest.mark.parametrize(
    ("norm", "weight"),
    [
        (keras_norm.RBN, "center_weight"),
        (keras_norm.RBN, "scale_weight"),
        (keras_norm.EvalNorm, "mean_mix"),
        (keras_norm.EvalNorm, "variance_mix"),
    ],
)
def test_norms_of_each_example_stay(norm, weight):
    model = chain((6, 7, 3), layers.Conv2D(4, 3), norm(name="norm"))
    variable = getattr(model.get_layer("norm"), weight)
    variable.assign(np.full(variable.shape, 0.5))
    _, report = check_fold(model, [None])
    assert f"its {weight} is not zero" in report.kept[0].reason
