"""Values of the weights, dtypes, verification and errors."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm import fold
from keras_norm.conversion import verify
from tests.folding.models import all_layers
from tests.folding.models import batch
from tests.folding.models import chain
from tests.folding.models import check_fold
from tests.folding.models import outputs
from tests.folding.models import randomize
from tests.folding.models import relative_difference

BatchNorm = layers.BatchNormalization


def set_weights(layer, **values):
    for name, value in values.items():
        variable = getattr(layer, name)
        array = np.array(keras.ops.convert_to_numpy(variable), "float64")
        array[: len(value)] = value
        variable.assign(array)


def windows(x, size, strides=1, dilation=1):
    """Returns all windows of `(N, H, W, C)`: `(N, h, w, size, size, C)`."""
    extent = (size - 1) * dilation + 1
    rows = range(0, x.shape[1] - extent + 1, strides)
    columns = range(0, x.shape[2] - extent + 1, strides)
    return np.stack(
        [
            np.stack(
                [
                    x[:, i : i + extent : dilation, j : j + extent : dilation]
                    for j in columns
                ],
                axis=1,
            )
            for i in rows
        ],
        axis=1,
    )


def normalize(x, norm):
    gamma, beta, mean, variance = (
        np.array(w, "float64") for w in norm.get_weights()
    )
    return (x - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta


@pytest.mark.parametrize("forward", [False, True])
def test_against_numpy_in_float64(forward):
    """A convolution with groups, dilation, and zeros at the border."""
    conv = layers.Conv2D(6, 3, groups=2, dilation_rate=2, padding="same")
    norm = BatchNorm()
    order = [norm, conv] if forward else [conv, norm]
    model = chain((7, 8, 4), *order, dtype="float32")
    folded, report = fold(model)
    assert len(report.folded) == 1
    x = batch(model)
    kernel, bias = (np.array(w, "float64") for w in conv.get_weights())
    y = normalize(x.astype("float64"), norm) if forward else x
    padded = np.pad(y, [(0, 0), (2, 2), (2, 2), (0, 0)])
    found = windows(padded, 3, dilation=2)
    expected = np.concatenate(
        [
            np.einsum(
                "nhwijc,ijcf->nhwf",
                found[..., 2 * group : 2 * group + 2],
                kernel[..., 3 * group : 3 * group + 3],
            )
            for group in range(2)
        ],
        axis=-1,
    )
    expected = expected + bias
    expected = expected if forward else normalize(expected, norm)
    (got,) = outputs(folded, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(got[:, 0], expected[:, 0], rtol=1e-4, atol=2e-5)


EXTREMES = {
    "negative": {"gamma": [-1.0, -3.0]},
    "tiny": {"gamma": [1e-8, -1e-8]},
    "no_variance": {"moving_variance": [1e-36, 0.0]},
    "large_mean": {"moving_mean": [50.0, -50.0]},
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_extreme_weights(name, direction):
    conv, norm = layers.Conv2D(4, 3, padding="same"), BatchNorm()
    order = [conv, norm] if direction == "backward" else [norm, conv]
    model = chain((6, 7, 4), *order, layers.Activation("tanh"))
    set_weights(norm, **EXTREMES[name])
    check_fold(model, [direction], tolerance=1e-9)


@pytest.mark.usefixtures("float64")
def test_gamma_of_zero():
    conv, norm = layers.Conv2D(4, 3, padding="same"), BatchNorm()
    model = chain((6, 7, 4), conv, norm, layers.Activation("tanh"))
    set_weights(norm, gamma=[0.0, 0.0])
    check_fold(model, ["backward"])
    for padding, direction in (("valid", "forward"), ("same", None)):
        conv = layers.Conv2D(4, 3, padding=padding)
        model = chain((6, 7, 4), norm, conv, layers.Activation("tanh"))
        set_weights(norm, gamma=[0.0, 0.0])
        _, report = check_fold(model, [direction])
    assert "factor of 0" in report.kept[0].reason
    # A constant of zero needs no padding.
    set_weights(norm, beta=[0.0, 0.0])
    check_fold(model, ["forward"])
    model = chain((6, 7, 4), norm, layers.ZeroPadding2D(), layers.Conv2D(4, 3))
    set_weights(norm, gamma=[0.0, 0.0], beta=[1.0, 1.0])
    _, report = check_fold(model, [None])
    assert "factor of 0" in report.kept[0].reason


@pytest.mark.usefixtures("float64")
def test_no_bias_without_an_offset():
    conv = layers.Conv2D(4, 3, use_bias=False, padding="same", name="conv")
    norm = BatchNorm(center=False)
    for order in ([conv, norm], [norm, conv]):
        model = chain((6, 7, 4), *order, layers.ReLU())
        set_weights(norm, moving_mean=[0.0] * 4)
        direction = "backward" if order[0] is conv else "forward"
        folded, report = check_fold(model, [direction])
        assert report.num_paddings == 0
        assert not folded.get_layer("conv").use_bias


@pytest.mark.parametrize(
    "policy", ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"]
)
def test_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = chain(
        (9, 8, 3),
        layers.Conv2D(4, 3, use_bias=False),
        BatchNorm(),
        layers.ReLU(),
        BatchNorm(),
        layers.Conv2D(5, 3, padding="same"),
        dtype="float32",
    )
    folded, report = fold(model)
    assert [e.direction for e in report.entries] == ["backward", "forward"]
    assert report.comparisons[0].relative <= verify.HALF_TOLERANCE
    policies = {layer.dtype_policy.name for layer in all_layers(folded)[1:]}
    assert policies == {policy}
    # Cast once: the kernel is the float64 product, rounded.
    gamma, _, _, variance = (
        np.array(keras.ops.convert_to_numpy(w), "float64")
        for w in model.layers[2].variables
    )
    kernel = model.layers[1].kernel
    product = np.array(keras.ops.convert_to_numpy(kernel), "float64") * (
        gamma / np.sqrt(variance + model.layers[2].epsilon)
    )
    folded_kernel = keras.ops.convert_to_numpy(folded.layers[1].kernel)
    np.testing.assert_array_equal(
        folded_kernel, product.astype(folded_kernel.dtype)
    )


def test_norm_of_another_dtype_than_its_convolution():
    """Outputs and sums keep the dtype that the norm gave them."""
    x = keras.Input((4,))
    y = layers.Dense(3, dtype="mixed_bfloat16")(x)
    y = BatchNorm(dtype="float32", name="bn")(y)
    z = layers.Dense(3)(x)
    model = randomize(keras.Model(x, [keras.ops.add(y, z), y]))
    folded, report = fold(model)
    assert len(report.folded) == 1
    assert [t.dtype for t in folded.outputs] == ["float32", "float32"]


def test_quantized_layers_keep_the_norm():
    dense = layers.Dense(3)
    model = chain((4,), dense, BatchNorm(), dtype="float32")
    dense.quantize("int8")
    _, report = fold(model, verify=False)
    assert "quantized" in report.kept[0].reason


def test_factors_out_of_the_range_of_float16_stay():
    keras.config.set_dtype_policy("mixed_float16")
    norm = BatchNorm(epsilon=0.0)
    model = chain((4,), layers.Dense(4), norm, layers.ReLU(), dtype="float32")
    set_weights(norm, moving_variance=[1e-36])
    _, report = fold(model, verify=False)
    assert "do not fit into float16" in report.kept[0].reason
    norm = BatchNorm()
    conv = layers.Conv2D(3, 3, padding="same")
    model = chain((6, 6, 4), layers.ReLU(), norm, conv, dtype="float32")
    set_weights(norm, gamma=[1e-7], beta=[1.0])
    _, report = fold(model, verify=False)
    assert "float16" in report.kept[0].reason


def test_verification_fails_on_a_difference(monkeypatch):
    model = chain((4,), layers.Dense(3), BatchNorm(), dtype="float32")
    monkeypatch.setattr(
        "keras_norm.folding.planner.norm_vectors",
        lambda layer, values: (np.full(3, 1.001), np.zeros(3)),
    )
    with pytest.raises(keras_norm.ConversionError) as error:
        fold(model)
    assert "The folding of" in str(error.value)
    assert re.search(
        r"differ by [\d.]+, [\d.]+ of the largest", str(error.value)
    )
    folded, report = fold(model, verify=False)
    assert not report.comparisons and len(report.folded) == 1


def test_verifies_on_given_inputs():
    model = chain((None, 4), layers.Dense(3), BatchNorm(), dtype="float32")
    for x in (np.ones((5, 3, 4)), np.zeros((1, 2, 4), "float32").tolist()):
        _, report = fold(model, inputs=np.asarray(x))
        assert [c.inputs for c in report.comparisons] == ["random", "given"]
    assert report.comparisons[1].num_samples == 1
    with pytest.raises(keras_norm.ConversionError, match="given inputs"):
        fold(model, inputs=np.ones((2, 3, 5)))
    with pytest.raises(keras_norm.ConversionError, match="not finite"):
        fold(model, inputs=np.full((2, 3, 4), np.nan))


def test_errors_are_one_line():
    dense = chain((4,), layers.Dense(3), dtype="float32")
    broken = chain((4,), layers.Dense(3), BatchNorm(name="bn"), dtype="float32")
    set_weights(broken.layers[2], moving_mean=[np.nan])
    negative = chain((4,), layers.Dense(3), BatchNorm(), dtype="float32")
    set_weights(negative.layers[2], moving_variance=[-1.0])

    class Subclass(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = BatchNorm()

        def call(self, inputs):
            return self.norm(inputs)

    for model, words, options in (
        (dense, "has no batch normalization: nothing to fold", {}),
        (broken, "invalid values in moving_mean", {"verify": False}),
        (negative, "invalid values in moving_variance", {}),
        (Subclass(), "has no functional graph", {}),
        ("model.keras", "must be a Keras model", {}),
        (None, "must be a Keras model", {}),
        (keras.Sequential([BatchNorm()]), "is not built", {}),
    ):
        with pytest.raises(keras_norm.ConversionError, match=words) as error:
            fold(model, **options)
        assert "\n" not in str(error.value)


def test_folded_model_loads_without_this_package(tmp_path):
    model = chain(
        (6, 7, 3), layers.Conv2D(4, 3), BatchNorm(), layers.ReLU(),
        dtype="float32",
    )  # fmt: skip
    folded, _ = fold(model)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    assert relative_difference(folded, loaded, batch(model)) == 0
    assert not any(
        type(layer).__module__.startswith("keras_norm")
        for layer in all_layers(loaded)
    )


def test_model_with_padding_loads(tmp_path):
    model = chain(
        (6, 7, 3), layers.ReLU(), BatchNorm(), layers.ZeroPadding2D(),
        layers.Conv2D(4, 3, padding="same"), dtype="float32",
    )  # fmt: skip
    folded, report = fold(model)
    assert report.num_paddings == 2
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    assert relative_difference(folded, loaded, batch(model)) == 0


def test_report():
    model = chain(
        (6, 7, 3), layers.Conv2D(4, 3, name="conv"), BatchNorm(name="a"),
        layers.ReLU(), BatchNorm(name="b"), layers.ReLU(), dtype="float32",
    )  # fmt: skip
    _, report = fold(model)
    text = str(report)
    assert "1 of 2 batch normalizations folded" in text
    assert "another network in training" in text
    assert "verified on 2 random samples" in text
    data = report.to_dict()
    assert data["num_folded"] == data["num_kept"] == 1
    assert data["entries"][0]["into"] == ("conv",)
