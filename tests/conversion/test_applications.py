"""Conversion of every keras.applications model with batch normalization."""

import functools
import inspect
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_norm
from tests.conversion import small_models

WITHOUT_BATCH_NORM = ("VGG", "ConvNeXt")
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
REPRESENTATIVE = (
    "ResNet50",
    "MobileNetV2",
    "InceptionV3",
    "EfficientNetB0",
    "NASNetMobile",
)
# Training takes long, above all on JAX, which compiles a training step for a
# minute.
TRAINED = "MobileNetV2"
NORMS = ("frn", "rbn", "gn", "bn")
NAMES = [
    name
    for name, build in vars(keras.applications).items()
    if inspect.isfunction(build) and not name.startswith(WITHOUT_BATCH_NORM)
]


# What becomes of each: batch normalizations, TLUs made, ReLUs kept, to FRN.
SHORT_COUNTS = ("ResNet50V2", "MobileNetV2", "MobileNetV3Small", "Xception")
COUNTS = {
    "ResNet50": (53, 49, 0),
    "ResNet50V2": (49, 49, 0),
    "DenseNet121": (121, 121, 0),
    "MobileNet": (27, 0, 27),
    "MobileNetV2": (52, 0, 35),
    "MobileNetV3Small": (34, 5, 18),
    "EfficientNetB0": (49, 0, 0),
    "InceptionV3": (94, 94, 0),
    "NASNetMobile": (192, 162, 30),
    "Xception": (40, 35, 0),
}

RELOAD = """
import sys
import keras
import numpy as np
import keras_norm

folder = sys.argv[1]
inputs = np.load(f"{folder}/inputs.npy")
for norm in sys.argv[2:]:
    model = keras.saving.load_model(f"{folder}/{norm}.keras")
    outputs = keras.ops.stop_gradient(model(inputs, training=False))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(outputs), np.load(f"{folder}/{norm}.npy")
    )
"""


@functools.cache
def build(name):
    if "NASNet" in name and keras.backend.backend() == "torch":
        pytest.skip("Keras does not build NASNet on torch")
    size = SMALLEST.get(name, 32)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10
    )
    # As after a training; the other weights are of every size as they are.
    generator = np.random.default_rng(0)
    for layer in small_models.stock(model):
        for variable in layer.variables:
            positive = variable.name in ("gamma", "moving_variance")
            low, high = (0.5, 1.5) if positive else (-0.5, 0.5)
            variable.assign(generator.uniform(low, high, variable.shape))
    return model


def draw(model):
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def test_applications_has_33_models():
    assert len(NAMES) == 33


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in SHORT_COUNTS else pytest.mark.long
        )
        for name in COUNTS
    ],
)
def test_numbers_of_replaced_layers(name):
    report = keras_norm.plan_conversion(build(name), "frn")
    counts = len(report.replaced), report.num_thresholds, report.num_relus_kept
    assert counts == COUNTS[name]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == TRAINED else pytest.mark.long)
        for name in REPRESENTATIVE
    ],
)
@pytest.mark.parametrize(
    "norms",
    [
        ("bn", "rbn"),
        pytest.param(("sync_bn", "frozen"), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_conversion_is_numerically_equivalent(name, norms):
    model = build(name)
    for norm in norms:
        _, report = keras_norm.convert(model, norm, inputs=255 * draw(model))
        for comparison in report.comparisons:
            if norm == "rbn":
                assert comparison.relative < 1e-5
            else:
                assert comparison.largest == 0.0


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        (TRAINED, ("frn",)),
        *(pytest.param(name, NORMS, marks=pytest.mark.long) for name in NAMES),
    ],
)
def test_converted_model_trains_and_reloads_in_a_new_process(
    name, norms, tmp_path
):
    model = build(name)
    inputs = draw(model)
    np.save(tmp_path / "inputs.npy", inputs)
    for norm in norms:
        start = time.perf_counter()
        converted, report = keras_norm.convert(model, norm)
        seconds = time.perf_counter() - start
        print(f"{name} to {norm}: {seconds:.1f} s. {report.summary()}")
        assert seconds < 60
        assert report.replaced and not small_models.stock(converted)
        (outputs,) = small_models.call(converted, inputs, training=False)
        assert np.isfinite(outputs).all()
        np.save(tmp_path / f"{norm}.npy", outputs)
        converted.save(tmp_path / f"{norm}.keras")
        converted.compile(
            optimizer=keras.optimizers.SGD(1e-3),
            loss="sparse_categorical_crossentropy",
            run_eagerly=keras.backend.backend() == "tensorflow",
        )
        loss = converted.train_on_batch(inputs, np.array([0, 1]))
        assert np.isfinite(loss)
        for variable in converted.trainable_variables:
            value = keras.ops.convert_to_numpy(variable)
            assert np.isfinite(value).all(), variable.path
    subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path), *norms], check=True
    )
