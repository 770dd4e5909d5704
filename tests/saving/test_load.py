"""Loading and saving model files, their errors and temporary files."""

import json
import os
import pathlib
import resource
import stat
import subprocess
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.errors import ConversionError
from keras_norm.saving import load
from tests.assertions import assert_allclose
from tests.assertions import to_numpy
from tests.saving import keras2_examples

ROOT = pathlib.Path(__file__).parent.parent.parent
IMAGE = (4, 5, 2)
COMPILED = "Saved by Keras 2.9.0, in an old format: loaded without compiling."


def scale_class():
    """Layer that is registered, and not importable by its module."""

    @keras.saving.register_keras_serializable("scales")
    class Scale(layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

    return Scale


def norm():
    return layers.BatchNormalization()


def sequential(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


def functional(*parts, shape=IMAGE):
    inputs = outputs = keras.Input(shape)
    for part in parts:
        outputs = part(outputs)
    return keras.Model(inputs, outputs)


def small():
    return functional(layers.Conv2D(3, 1), layers.BatchNormalization(3))


def nested(is_last):
    inner = functional(layers.Conv2D(2, 1), norm())
    stack = sequential(IMAGE, layers.Conv2D(2, 1), norm())
    inner.trainable = False
    end = () if is_last else (layers.Dense(2),)
    return functional(inner, stack, inner, *end)


def ending_in_a_functional():
    return functional(norm(), functional(norm(), layers.Conv2D(2, 1)))


def slices():
    return sequential(IMAGE[1:], norm(), layers.Dense(3))


def two_ended():
    left, right = keras.Input((3,)), keras.Input((3,))
    both = layers.Add()([left, right])
    return keras.Model([left, right], [norm()(both), layers.Dense(2)(right)])


def shared():
    convolution, bn = layers.Conv2D(2, 1), norm()
    return functional(convolution, bn, convolution, bn)


STACKS = {
    "activation": ((6,), lambda: layers.Activation("relu")),
    "batch_norm": (IMAGE, norm),
    "convolution": (IMAGE, lambda: layers.Conv2D(3, 1)),
    "dense": ((6,), lambda: layers.Dense(4)),
    "dropout": ((6,), lambda: layers.Dropout(0.5)),
    "embedding": ((4,), lambda: layers.Embedding(9, 3)),
    "flatten": (IMAGE, layers.Flatten),
    "reshape": ((40,), lambda: layers.Reshape(IMAGE)),
}
GRAPHS = {
    "conv": small,
    "depthwise": lambda: functional(layers.DepthwiseConv2D(2), norm()),
    "functional_end": ending_in_a_functional,
    "lstm": lambda: functional(layers.LSTM(3), norm(), shape=(4, 2)),
    "nested": lambda: nested(is_last=False),
    "nested_end": lambda: nested(is_last=True),
    "shared": shared,
    "time": lambda: functional(layers.TimeDistributed(norm())),
    "time_nested": lambda: functional(layers.TimeDistributed(slices())),
    "two_ended": two_ended,
}


def draw_weights(model):
    generator = np.random.default_rng(1)
    for variable in model.variables:
        if "seed" not in variable.name:
            value = generator.uniform(0.2, 1.5, variable.shape)
            variable.assign(value.astype("float32"))
    return model


def assert_same(model, other):
    generator = np.random.default_rng(2)
    inputs = [
        generator.uniform(0.0, 4.0, (2, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    outputs, others = model(inputs), other(inputs)
    if not isinstance(outputs, list):
        outputs, others = [outputs], [others]
    for output, value in zip(others, outputs, strict=True):
        assert np.std(to_numpy(value)) > 0.0
        assert_allclose(output, value, rtol=1e-5, atol=1e-6)


def fails(*args, function=load.load_model, **kwargs):
    """Returns the one-line error that loading raises."""
    with pytest.raises(ConversionError) as raised:
        function(*args, **kwargs)
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) <= 400
    return line


def save(model, path):
    """Saves a model without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.saving.save_model(model, path)
    return path


@pytest.mark.parametrize(
    "suffixes",
    [
        (".keras", ".keras"),
        (".keras", ".KERAS"),
        (".keras", ".h5"),
        (".keras", ""),
        (".h5", ".h5"),
        (".h5", ".hdf5"),
        (".h5", ".keras"),
        (".h5", ".model"),
    ],
)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_file_format_is_detected_from_content(suffixes, kind, tmp_path):
    saved, named = suffixes
    model = draw_weights(functional(layers.Conv2D(3, 1), keras_norm.FRN()))
    model.compile("adam", "mse")
    path = save(model, tmp_path / f"saved{saved}").rename(
        tmp_path / f"model{named}"
    )
    before = path.read_bytes(), path.stat().st_mtime_ns
    loaded, notes = load.load_model(kind(path))
    assert_same(model, loaded)
    assert not loaded.compiled
    assert len(notes) == (saved == ".h5")
    assert all(keras.__version__ in note for note in notes)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("first", STACKS)
@pytest.mark.parametrize("has_input", [False, True])
def test_sequential_model_of_keras_2_loads(first, has_input, tmp_path):
    shape, layer = STACKS[first]
    model = sequential(shape, layer(), norm(), layers.Dense(2))
    draw_weights(model)
    path = tmp_path / "model.h5"
    keras2_examples.write_hdf5(path, model, has_input)
    before = path.read_bytes()
    loaded, notes = load.load_model(path)
    assert_same(model, loaded)
    assert [x.name for x in loaded.layers] == [x.name for x in model.layers]
    assert loaded.layers[-2].axis == model.layers[-2].axis
    assert notes[0] == COMPILED
    assert [
        f"starts with {model.layers[0].name!r}" in x for x in notes[1:]
    ] == [True] * (not has_input)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("name", ["Functional", "Model"])
def test_functional_model_of_keras_2_loads(kind, name, tmp_path):
    model = draw_weights(GRAPHS[kind]())
    path = tmp_path / "model.h5"
    keras2_examples.write_hdf5(
        path, model, edit=lambda c: c.update(class_name=name)
    )
    loaded, notes = load.load_model(path)
    assert_same(model, loaded)
    assert notes == [COMPILED]


@pytest.mark.parametrize("kind", [*STACKS, *GRAPHS])
def test_keras_archive_of_keras_2_loads(kind, tmp_path):
    if kind in GRAPHS:
        model = GRAPHS[kind]()
    else:
        shape, layer = STACKS[kind]
        model = sequential(shape, layer(), norm(), layers.Dense(2))
    draw_weights(model)
    path = tmp_path / "model.keras"
    keras2_examples.write_archive(path, model)
    loaded, notes = load.load_model(path)
    assert_same(model, loaded)
    assert notes == [COMPILED]


def test_nested_sequential_of_keras_2_loads(tmp_path):
    inner = sequential((40,), layers.Reshape(IMAGE), layers.Conv2D(3, 1))
    model = draw_weights(sequential((40,), inner, norm()))
    keras2_examples.write_hdf5(tmp_path / "model.h5", model, has_input=False)
    loaded, notes = load.load_model(tmp_path / "model.h5")
    assert_same(model, loaded)
    assert len(notes) == 2


def test_time_major_recurrent_layer_of_keras_2_raises(tmp_path):
    def edit(config):
        config["config"]["layers"][1]["config"]["time_major"] = True

    path = tmp_path / "model.h5"
    keras2_examples.write_hdf5(path, GRAPHS["lstm"](), edit=edit)
    assert "time_major" in fails(path)


def test_tensorflow_operation_of_keras_2_raises(tmp_path):
    def edit(config):
        config["config"]["layers"][1] |= {"class_name": "TFOpLambda"}

    path, model = tmp_path / "model.h5", small()
    keras2_examples.write_hdf5(path, model, edit=edit)
    assert model.layers[1].name in fails(path)


def lambda_file(kind, path):
    """Saves a model with a Lambda in one of three formats."""
    double = layers.Lambda(lambda x: 2.0 * x, output_shape=IMAGE)
    model = draw_weights(functional(double, norm()))
    if kind == "keras 2":

        def edit(config):
            old = config["config"]["layers"][1]["config"]
            code = old["function"]["config"]
            old["function"] = [code["code"], None, None]
            old |= {"function_type": "lambda", "output_shape": list(IMAGE)}

        keras2_examples.write_hdf5(path, model, edit=edit)
    else:
        save(model, path)
    return model


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("keras 3", "model.keras"),
        ("keras 3", "model.h5"),
        ("keras 2", "model.h5"),
    ],
)
def test_python_code_in_a_file_runs_only_if_unsafe(kind, name, tmp_path):
    path = tmp_path / name
    model = lambda_file(kind, path)
    line = fails(path)
    assert f"{str(path)!r} contains Python code" in line
    assert "unsafe=True (--unsafe)" in line
    loaded, notes = load.load_model(path, unsafe=True)
    assert_same(model, loaded)
    note = f"Python code in {str(path)!r} was allowed to run (unsafe)."
    assert notes[-1] == note
    assert keras2_examples.in_safe_mode() is None
    with keras2_examples.unsafe_scope():
        assert fails(path) == line


def test_python_code_in_the_compile_config_is_ignored(tmp_path):
    model = small()
    model.compile("sgd", lambda y, z: y)
    load.load_model(save(model, tmp_path / "model.keras"))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_unknown_class_is_named(name, tmp_path, monkeypatch):
    path = save(functional(scale_class()(), norm()), tmp_path / name)
    load.load_model(path)
    registered = keras.saving.get_custom_objects()
    monkeypatch.delitem(registered, "scales>Scale")
    line = fails(path)
    assert f"{str(path)!r} contains 'scales>Scale', which is unknown" in line
    assert "(--import MODULE)" in line


def test_unknown_function_is_named(tmp_path, monkeypatch):
    def twice(x):
        return 2.0 * x

    register = keras.saving.register_keras_serializable("scales")
    model = functional(layers.Activation(register(twice)))
    path = save(model, tmp_path / "model.keras")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "scales>twice")
    assert "'scales>twice'" in fails(path)


def write_archive(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.json", data)


def write_damaged(path):
    """Flips a byte of the weights in the archive."""
    save(small(), path)
    data = bytearray(path.read_bytes())
    value = to_numpy(keras.ops.ones(3)).tobytes()
    data[data.rindex(value) + 1] ^= 1
    path.write_bytes(data)


def write_cut(path):
    save(small(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_weights(path):
    small().save_weights(path)


def write_old_weights(path):
    save(small(), path)
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]


def write_saved_model(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"")


def write_layer(path):
    config = keras.saving.serialize_keras_object(layers.ReLU())
    save(small(), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_unbuilt(path):
    save(keras.Sequential([layers.Dense(3)]), path)


BAD = {
    "a.keras": (lambda path: None, "does not exist: pass a .keras"),
    "b.keras": (lambda path: path.touch(), "is empty: save"),
    "c.keras": (
        lambda path: path.write_bytes(bytes(range(256))),
        "is neither a .keras archive nor an HDF5 file: save",
    ),
    "d.keras": (
        write_cut,
        "is damaged or truncated, copy it again: File is not",
    ),
    "e.h5": (write_cut, "is damaged or truncated, copy it again: Unable to"),
    "f.keras": (
        write_damaged,
        "is damaged or truncated, copy it again: Bad CRC-32 for file 'model.w",
    ),
    "g.zip": (
        lambda path: write_archive(path, data="{}"),
        "is a zip archive without a Keras model, because config.json is",
    ),
    "h.keras": (
        lambda path: write_archive(path, config="{", metadata="{}"),
        "cannot be loaded: JSONDecodeError: Expecting property name",
    ),
    "i.weights.h5": (write_weights, "contains no model, at most weights: load"),
    "j.h5": (write_old_weights, "contains no model, at most weights: load"),
    "k": (pathlib.Path.mkdir, "is not a file: pass a .keras"),
    "l": (write_saved_model, "is a SavedModel, which contains no Keras layers"),
    "m.keras": (write_layer, "contains a ReLU that is not a built model: call"),
    "n.keras": (
        write_unbuilt,
        "contains a Sequential that is not a built model",
    ),
    "o\np.keras": (lambda path: None, "does not exist"),
    "q\0.keras": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_does_not_load_raises_a_one_line_error(name, tmp_path):
    path = tmp_path / name
    write, expected = BAD[name]
    write(path)
    assert fails(path).startswith(f"{str(path)!r} {expected}")


def test_damaged_archive_is_not_passed_to_keras(tmp_path, monkeypatch):
    # Where Keras seeks in a member, Python does not check its sum.
    write_damaged(tmp_path / "model.keras")
    seen = []
    monkeypatch.setattr(
        keras.saving, "load_model", lambda path, **options: seen.append(path)
    )
    fails(tmp_path / "model.keras")
    assert seen == []


def test_error_of_several_lines_becomes_one_line(tmp_path, monkeypatch):
    def load_model(*args, **kwargs):
        wrapper = "config={'a': 1}. Exception encountered: "
        raise RuntimeError(f"{wrapper}one\n\n   two " + "three " * 1000)

    path = save(small(), tmp_path / "model.keras")
    monkeypatch.setattr(keras.saving, "load_model", load_model)
    line = fails(path)
    assert "cannot be loaded: RuntimeError: one two three three" in line
    assert len(line) == 400
    assert line.endswith("...")


def test_loading_prints_nothing_and_restores_global_state(tmp_path, capfd):
    state = (
        warnings.filters[:],
        sys.stdout,
        keras.config.dtype_policy(),
        keras.config.is_interactive_logging_enabled(),
        keras2_examples.in_safe_mode(),
    )
    path = tmp_path / "model.h5"
    stack = sequential((6,), layers.Dense(4), layers.LeakyReLU(0.1), norm())

    def edit(config):
        leaky = config["config"]["layers"][2]["config"]
        leaky["alpha"] = leaky.pop("negative_slope")

    keras2_examples.write_hdf5(path, stack, edit=edit)
    capfd.readouterr()
    with pytest.warns(UserWarning, match="alpha|input_shape"):
        keras.saving.load_model(path, compile=False)
    loaded, _ = load.load_model(path)
    assert loaded.layers[1].negative_slope == pytest.approx(0.1)
    assert capfd.readouterr() == ("", "")
    assert state == (
        warnings.filters[:],
        sys.stdout,
        keras.config.dtype_policy(),
        keras.config.is_interactive_logging_enabled(),
        keras2_examples.in_safe_mode(),
    )


def test_layers_of_this_package_and_of_tfa_load_in_a_new_process(tmp_path):
    from keras_norm import compat

    frn = compat.FilterResponseNormalization()
    save(functional(frn, keras_norm.TLU()), tmp_path / "model.keras")
    code = (
        "from keras_norm.saving import load\n"
        f"model, _ = load.load_model({str(tmp_path / 'model.keras')!r})\n"
        "print(*(type(x).__module__ for x in model.layers[1:]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.split() == ["keras_norm.compat", "keras_norm.layers.tlu"]


def test_application_is_built_by_name():
    model, notes = load.load_model("applications:MobileNet")
    assert model.name.startswith("mobilenet")
    assert notes == ["MobileNet has random initial weights."]


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet50", "ResNet50"), ("VGG6", "VGG16")]
)
def test_unknown_application_suggests_the_nearest_name(name, nearest):
    line = fails(f"applications:{name}")
    assert line == (
        f"keras.applications has no model {name!r}: the nearest name is "
        f"applications:{nearest}"
    )


def test_failed_download_raises_a_one_line_error(monkeypatch, capfd):
    def MobileNet(weights):
        print("Downloading data from ...")
        raise Exception(f"URL fetch failure on\nhttps://{weights}")

    monkeypatch.setattr(keras.applications, "MobileNet", MobileNet)
    line = fails("applications:MobileNet", weights="imagenet")
    assert line == (
        "'applications:MobileNet' cannot be loaded: Exception: URL fetch "
        "failure on https://imagenet"
    )
    assert capfd.readouterr() == ("", "")


def test_only_applications_accept_weights(tmp_path):
    path = save(small(), tmp_path / "model.keras")
    assert "weights='imagenet'" in fails(path, weights="imagenet")
    assert "weights='x'" in fails("applications:MobileNet", weights="x")


def write(*args, **kwargs):
    """Returns the one-line error that both check and save raise."""
    line = fails(*args, function=load.check_target, **kwargs)
    assert line == fails(small(), *args, function=load.save_model, **kwargs)
    return line


def test_saved_model_loads(tmp_path):
    model, path = draw_weights(small()), tmp_path / "model.keras"
    load.check_target(path)
    assert os.listdir(tmp_path) == []
    load.save_model(model, str(path))
    assert_same(model, load.load_model(path)[0])
    assert os.listdir(tmp_path) == [path.name]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_invalid_target_raises(tmp_path):
    line = write(tmp_path / "model.h5")
    assert line.endswith("output format: write to 'model.keras'")
    (tmp_path / "folder.keras").mkdir()
    assert "is a folder" in write(tmp_path / "folder.keras", overwrite=True)
    line = write(tmp_path / "none" / "model.keras")
    assert line.endswith(f"create {str(tmp_path / 'none')!r} first")
    # Not even root can write here, although the permissions allow it.
    line = write("/proc/model.keras")
    assert line == (
        "'/proc/model.keras' cannot be written: FileNotFoundError: No such "
        "file or directory"
    )
    name = f"{'x' * 250}.keras"
    assert "cannot be written: OSError: File name" in write(tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.keras"]


def test_existing_file_is_replaced_only_with_overwrite(tmp_path):
    path, link = tmp_path / "model.keras", tmp_path / "link.keras"
    path.write_text("precious")
    link.symlink_to(path)
    line = write(path)
    assert line.startswith(f"{str(path)!r} exists:")
    assert "overwrite=True (--overwrite)" in line
    assert path.read_text() == "precious"
    load.save_model(small(), link, overwrite=True)
    assert link.is_symlink()
    load.load_model(path)


def test_full_disk_keeps_the_existing_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("precious")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        line = fails(small(), path, True, function=load.save_model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line.startswith(f"{str(path)!r} cannot be written: OSError: File")
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == [path.name]


def test_interrupted_save_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*args):
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load.save_model(small(), tmp_path / "model.keras")
    assert os.listdir(tmp_path) == []


def test_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []

    def recorded(function):
        def call(*args):
            calls.append(function.__name__)
            return function(*args)

        return call

    for function in os.fsync, os.replace:
        monkeypatch.setattr(os, function.__name__, recorded(function))
    load.save_model(small(), tmp_path / "model.keras")
    assert calls == ["fsync", "replace"]


def test_model_that_cannot_be_saved_raises_a_one_line_error(tmp_path):
    class Stubborn(scale_class()):
        def get_config(self):
            raise NotImplementedError("no\nno")

    model = functional(Stubborn())
    path = tmp_path / "model.keras"
    line = fails(model, path, function=load.save_model)
    assert "cannot be written: NotImplementedError: no no" in line
    assert os.listdir(tmp_path) == []
