"""Configs of Keras 2 that Keras 3 would read differently, without tf-keras."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from tests.saving import keras2_examples


def write(path, edit=None):
    """Writes a file of Keras 2 with a layer that `edit` changes."""
    x = keras.Input((6, 5, 2))
    y = layers.Conv2D(3, 2, activation="relu", name="conv")(x)
    model = keras.Model(x, layers.ReLU(6.0, name="cap")(y))

    def edit_layers(config):
        for layer in config["config"]["layers"]:
            if edit:
                edit(layer)

    keras2_examples.write_hdf5(path, model, edit=edit_layers)
    return model


def change(name, **values):
    def edit(layer):
        if layer["config"]["name"] == name:
            layer["config"].update(values)

    return edit


def test_an_argument_that_keras_3_does_not_have_is_named(tmp_path):
    path = tmp_path / "old.h5"
    write(path, change("conv", spin=3))
    with pytest.raises(keras_norm.ConversionError) as raised:
        keras_norm.load_model(path)
    line = str(raised.value)
    assert "'conv', a Conv2D of Keras 2" in line and "spin" in line


def test_an_argument_that_keras_3_reads_differently_is_named(
    tmp_path, monkeypatch
):
    path = tmp_path / "old.h5"
    write(path)
    keras_norm.load_model(path)
    get_config = layers.ReLU.get_config
    monkeypatch.setattr(
        layers.ReLU,
        "get_config",
        lambda self: {**get_config(self), "max_value": 7.0},
    )
    with pytest.raises(keras_norm.ConversionError, match="max_value=6.0"):
        keras_norm.load_model(path)


def test_hard_sigmoid_is_that_of_keras_2(tmp_path):
    path = tmp_path / "old.h5"
    model = write(path, change("conv", activation="hard_sigmoid"))
    loaded, _ = keras_norm.load_model(path)
    x = np.random.default_rng(0).normal(0, 3, (2, 6, 5, 2)).astype("float32")
    conv = model.get_layer("conv")
    kernel, bias = (np.asarray(w, "float64") for w in conv.weights)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))
    sums = np.einsum("bhwcij,ijcf->bhwf", windows.astype("float64"), kernel)
    expected = np.clip(0.2 * (sums + bias) + 0.5, 0.0, 1.0)
    assert 0.0 in expected and 1.0 in expected
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(loaded(x)), expected, rtol=1e-4, atol=1e-6
    )


def test_slashes_in_names_are_replaced_and_listed(tmp_path):
    path = tmp_path / "old.h5"

    def edit(layer):
        if layer["config"]["name"] == "cap":
            layer["name"] = layer["config"]["name"] = "block/cap"

    def rename_output(config):
        for layer in config["config"]["layers"]:
            edit(layer)
        config["config"]["output_layers"] = [["block/cap", 0, 0]]

    x = keras.Input((3,), name="x")
    y = layers.Dense(2, name="block_cap")(x)
    model = keras.Model(x, layers.ReLU(6.0, name="cap")(y))
    keras2_examples.write_hdf5(path, model, edit=rename_output)
    loaded, notes = keras_norm.load_model(path)
    assert notes.renamed == {"block/cap": "block_cap_1"}
    assert [x.name for x in loaded.layers] == ["x", "block_cap", "block_cap_1"]
    assert "'block/cap' is 'block_cap_1' now" in notes[-1]


def test_calls_that_form_a_loop_raise(tmp_path):
    path = tmp_path / "old.h5"

    def edit(layer):
        if layer["name"] == "conv":
            layer["inbound_nodes"] = [[["cap", 0, 0, {}]]]

    write(path, edit)
    with pytest.raises(keras_norm.ConversionError, match="form a loop"):
        keras_norm.load_model(path)
