"""Operations of exported models before and after folding."""

import collections

import keras
import numpy as np
import pytest

import keras_norm
from tests.folding.test_applications import build

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports need TensorFlow"
)


def count_operations(model, path):
    """Exports a model; returns its operations and a function that runs it."""
    model.export(str(path), format="litert", verbose=False)
    loaded = interpreter.Interpreter(str(path))
    names = [d["op_name"] for d in loaded._get_ops_details()]
    loaded.allocate_tensors()
    (source,) = loaded.get_input_details()
    (target,) = loaded.get_output_details()

    def run(images):
        loaded.set_tensor(source["index"], images)
        loaded.invoke()
        return loaded.get_tensor(target["index"])

    return collections.Counter(names), run


def test_litert_file_has_no_operation_of_batch_normalization(tmp_path):
    network = build("MobileNetV2")
    folded, _ = keras_norm.fold(network, verify=False)
    found, run = count_operations(folded, tmp_path / "folded.tflite")
    assert not {"MUL", "SUB", "DIV", "RSQRT"} & set(found)
    # The ends of the residual blocks.
    kinds = [type(layer) for layer in network.layers]
    assert found["ADD"] == kinds.count(keras.layers.Add) == 10
    convolutions = found["CONV_2D"] + found["DEPTHWISE_CONV_2D"]
    assert convolutions == 52
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3))
    images = images.astype("float32")
    outputs = run(images)
    expected = network.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


def test_litert_file_of_norms_after_relu_shrinks(tmp_path):
    """LiteRT cannot fold these by itself; forward folding does."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((16, 16, 3))])
    for filters in (8, 16):
        model.add(layers.Conv2D(filters, 3, activation="relu"))
        model.add(layers.BatchNormalization(beta_initializer="ones"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    before, _ = count_operations(model, tmp_path / "model.tflite")
    folded, _ = keras_norm.fold(model)
    after, _ = count_operations(folded, tmp_path / "folded.tflite")
    assert {"MUL", "ADD"} & set(before)
    assert not {"MUL", "ADD", "SUB"} & set(after)
