"""Models saved with TensorFlow Addons, in the files that Keras 2 wrote."""

import doctest
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_norm
from keras_norm import compat
from tests import reference
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.backend_gradients import value_and_gradients

ROOT = pathlib.Path(__file__).parent.parent
SHAPE = (2, 5, 7, 3)
FLOATS = ("float16", "float32", "float64")
FRN_NAME = "filter_response_normalization"
FRN_CLASSES = (compat.FilterResponseNormalization, keras_norm.FRN)
TLU_CLASSES = (compat.TLU, keras_norm.TLU)

each_float = pytest.mark.parametrize("dtype", FLOATS)
each_frn = pytest.mark.parametrize("frn", FRN_CLASSES)
each_tlu = pytest.mark.parametrize("tlu", TLU_CLASSES)
each_kind = pytest.mark.parametrize("learned_epsilon", [False, True])
each_form = pytest.mark.parametrize("affine", [False, True])


def draw(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.5, 2.0, shape).astype("float32")


def weights_of(learned_epsilon, affine):
    """Distinct values, in the order in which TFA created the weights."""
    frn = {"gamma": draw((1, 1, 1, 3), 2), "beta": draw((1, 1, 1, 3), 3)}
    if learned_epsilon:
        frn = {"learned_epsilon": np.array([-0.7], "float32"), **frn}
    tlu = {"tau": draw(SHAPE[1:], 4)}
    if affine:
        tlu["alpha"] = draw(SHAPE[1:], 5)
    return frn, tlu


def expected(x, frn, tlu, epsilon=3e-3):
    y = reference.frn(x.astype("float64"), frn, epsilon)
    return reference.tlu(y, tlu)


def keras2_object(dialect, module, class_name, **config):
    """An initializer or constraint, as TF 2.1 and as TF 2.15 wrote it."""
    saved = {"class_name": class_name, "config": config}
    if dialect == "2.15":
        saved |= {"module": f"keras.{module}", "registered_name": None}
    return saved


def keras2_config(learned_epsilon, affine, dialect="2.15", trainable=True):
    """The `model_config` of a functional model of TFA's FRN and TLU."""

    def saved(*args, **config):
        return keras2_object(dialect, *args, **config)

    base = {"trainable": trainable, "dtype": "float32"}
    non_negative = saved("constraints", "NonNeg")
    frn = {
        "name": FRN_NAME,
        **base,
        "axis": [1, 2],
        "epsilon": 3e-3,
        "learned_epsilon": learned_epsilon,
        "beta_initializer": saved("initializers", "Zeros"),
        "gamma_initializer": saved("initializers", "Ones"),
        "beta_regularizer": saved("regularizers", "L2", l2=0.25),
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": non_negative,
        "learned_epsilon_constraint": non_negative if learned_epsilon else None,
    }
    tlu = {
        "name": "tlu",
        **base,
        "tau_initializer": saved("initializers", "Constant", value=-1.0),
        "tau_regularizer": None,
        "tau_constraint": None,
        "affine": affine,
    }
    if affine:
        tlu["alpha_initializer"] = saved("initializers", "Zeros")
        tlu |= {"alpha_regularizer": None, "alpha_constraint": None}
    image = {
        "batch_input_shape": [None, *SHAPE[1:]],
        "dtype": "float32",
        "sparse": False,
        "ragged": False,
        "name": "image",
    }
    rows = [
        ("InputLayer", image, []),
        ("Addons>FilterResponseNormalization", frn, [[["image", 0, 0, {}]]]),
        ("Addons>TLU", tlu, [[[FRN_NAME, 0, 0, {}]]]),
    ]
    layers = [
        {
            "class_name": class_name,
            "config": config,
            "name": config["name"],
            "inbound_nodes": nodes,
        }
        for class_name, config, nodes in rows
    ]
    config = {
        "name": "model",
        "trainable": True,
        "layers": layers,
        "input_layers": [["image", 0, 0]],
        "output_layers": [["tlu", 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def write_keras2_h5(path, model_config, frn, tlu):
    """Writes a file as Keras 2 does for `.h5`: weights by name, in lists."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model_config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"image", FRN_NAME.encode(), b"tlu"]
        for layer, weights in ("image", {}), (FRN_NAME, frn), ("tlu", tlu):
            names = [
                # Created before its layer was built: without its name.
                f"{name}:0"
                if name == "learned_epsilon"
                else f"{layer}/{name}:0"
                for name in weights
            ]
            folder = group.create_group(layer)
            folder.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, weights.values(), strict=True):
                folder[name] = value


def write_keras2_archive(path, model_config, frn, tlu):
    """Writes a file as Keras 2 does for `.keras`: weights by number."""
    weights_path = path.with_suffix(".h5")
    with h5py.File(weights_path, "w") as file:
        for layer, weights in (
            ("input_layer", {}),
            (FRN_NAME, frn),
            ("tlu", tlu),
        ):
            folder = file.create_group(f"layers/{layer}/vars")
            for i, value in enumerate(weights.values()):
                folder[str(i)] = value
    homes = {"InputLayer": "keras.layers"}
    for layer in model_config["config"]["layers"]:
        registered_name = layer["class_name"]
        if registered_name not in homes:
            layer["registered_name"] = registered_name
            layer["class_name"] = registered_name.removeprefix("Addons>")
            layer["build_config"] = {"input_shape": [None, *SHAPE[1:]]}
        layer["module"] = homes.get(registered_name, "tensorflow_addons.layers")
    config = {
        "module": "keras.src.engine.functional",
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
        **model_config,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        archive.write(weights_path, "model.weights.h5")


@each_kind
@each_form
@pytest.mark.parametrize("dialect", ["2.1", "2.15"])
@pytest.mark.parametrize("trainable", [False, True])
def test_an_h5_file_loads(
    learned_epsilon, affine, dialect, trainable, tmp_path
):
    weights = weights_of(learned_epsilon, affine)
    config = keras2_config(learned_epsilon, affine, dialect, trainable)
    write_keras2_h5(tmp_path / "model.h5", config, *weights)
    model = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    x = draw()
    assert_allclose(model([x]), expected(x, *weights), rtol=1e-5, atol=1e-6)
    frn = model.get_layer(FRN_NAME)
    assert isinstance(frn.gamma_constraint, keras.constraints.NonNeg)
    assert frn.beta_regularizer.l2 == pytest.approx(0.25)
    assert frn.learned_epsilon_initializer.value == 1e-4
    assert len(model.trainable_weights) == trainable * len(model.weights)


@each_kind
@each_form
def test_an_archive_of_keras_2_loads(learned_epsilon, affine, tmp_path):
    weights = weights_of(learned_epsilon, affine)
    config = keras2_config(learned_epsilon, affine)
    write_keras2_archive(tmp_path / "model.keras", config, *weights)
    model = keras.saving.load_model(
        tmp_path / "model.keras",
        custom_objects={"Functional": keras.Model},
        compile=False,
    )
    x = draw()
    assert_allclose(model([x]), expected(x, *weights), rtol=1e-5, atol=1e-6)


@each_kind
@each_form
def test_a_loaded_model_saves_and_loads_again(
    learned_epsilon, affine, tmp_path
):
    weights = weights_of(learned_epsilon, affine)
    config = keras2_config(learned_epsilon, affine)
    write_keras2_h5(tmp_path / "model.h5", config, *weights)
    model = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_array_equal(again([draw()]), model([draw()]))
    for layer, other in zip(model.layers, again.layers, strict=True):
        assert type(other) is type(layer)
        assert other.get_config() == layer.get_config()
    for layer in config["config"]["layers"][1:]:
        keys = set(again.get_layer(layer["name"]).get_config())
        later = {"alpha_initializer", "alpha_regularizer", "alpha_constraint"}
        assert keys - later == set(layer["config"]) - later


def test_outputs_equal_those_of_tfa():
    # Printed by tensorflow-addons 0.23.0 on TensorFlow 2.15.1.
    x = [
        [[[1.0, -2.0], [3.0, 0.5]], [[-1.0, 4.0], [2.0, 0.0]]],
        [[[0.1, 0.2], [0.3, -0.4]], [[0.0, 0.0], [0.02, 0.6]]],
    ]
    after_frn = [
        [
            [[1.2799158, -0.5564745], [3.3397474, -1.1108813]],
            [[-0.7799158, -1.887051], [2.3098316, -1.0]],
        ],
        [
            [[1.1814929, -1.2492224], [3.044479, -0.5015552]],
            [[0.25, -1.0], [0.43629858, -1.7476671]],
        ],
    ]
    after_tlu = [
        [
            [[1.2799158, -0.5564745], [3.3397474, -0.38886017]],
            [[0.0, 0.4858814], [2.3098316, 1.125]],
        ],
        [
            [[1.1814929, -1.2184584], [3.044479, -0.3126944]],
            [[0.25, 0.375], [0.43629858, 1.4053751]],
        ],
    ]
    frn = compat.FilterResponseNormalization(1e-3, learned_epsilon=True)
    frn.build((None, 2, 2, 2))
    gamma = np.reshape([2.0, -0.5], (1, 1, 1, 2))
    beta = np.reshape([0.25, -1.0], (1, 1, 1, 2))
    frn.set_weights([np.array([-0.02]), gamma, beta])
    tlu = compat.TLU(affine=True)
    tlu.build((None, 2, 2, 2))
    steps = np.arange(8.0).reshape(2, 2, 2)
    tlu.set_weights([0.25 * steps - 1.0, 0.5 - 0.125 * steps])
    y = frn(np.array(x, "float32"))
    assert_allclose(y, after_frn, rtol=2e-6)
    assert_allclose(tlu(y), after_tlu, rtol=2e-6, atol=1e-6)


def test_the_weights_are_those_of_tfa():
    frn = compat.FilterResponseNormalization(learned_epsilon=True)
    frn.build((None, None, None, 3))
    assert [(v.name, tuple(v.shape)) for v in frn.weights] == [
        ("learned_epsilon", (1,)),
        ("gamma", (1, 1, 1, 3)),
        ("beta", (1, 1, 1, 3)),
    ]
    assert_allclose(frn.learned_epsilon, [1e-4])
    tlu = compat.TLU(affine=True)
    tlu.build(SHAPE)
    assert [(v.name, tuple(v.shape)) for v in tlu.weights] == [
        ("tau", SHAPE[1:]),
        ("alpha", SHAPE[1:]),
    ]


@each_kind
def test_with_the_same_weights_frn_is_ours(learned_epsilon):
    layer = compat.FilterResponseNormalization(learned_epsilon=learned_epsilon)
    ours = keras_norm.FRN(learned_epsilon=learned_epsilon)
    layer.build(SHAPE)
    ours.build(SHAPE)
    weights, _ = weights_of(learned_epsilon, affine=False)
    layer.set_weights(list(weights.values()))
    for variable in ours.weights:
        variable.assign(np.reshape(weights[variable.name], variable.shape))
    assert_array_equal(layer(draw()), ours(draw()))


@each_form
def test_with_one_threshold_a_channel_tlu_is_ours(affine):
    layer = compat.TLU(affine=affine)
    ours = keras_norm.TLU(affine=affine)
    layer.build(SHAPE)
    ours.build(SHAPE)
    values = [draw((3,), seed) for seed, _ in enumerate(ours.weights)]
    ours.set_weights(values)
    layer.set_weights([np.broadcast_to(v, SHAPE[1:]) for v in values])
    assert_array_equal(layer(draw()), ours(draw()))


@each_kind
@each_form
def test_gradients_equal_the_oracle(learned_epsilon, affine):
    x, upstream = draw(seed=6), draw(seed=7)
    layers = (
        compat.FilterResponseNormalization(learned_epsilon=learned_epsilon),
        compat.TLU(affine=affine),
    )
    functions = (reference.frn, reference.tlu)
    weights = weights_of(learned_epsilon, affine)
    for layer, function, values in zip(layers, functions, weights, strict=True):
        layer.build(SHAPE)
        layer.set_weights(list(values.values()))
        arguments = {k: v.astype("float64") for k, v in values.items()}

        def compute(given, function=function):
            return function(
                given["x"], {k: given[k] for k in given if k != "x"}
            )

        oracle = reference.gradients(
            compute, {"x": x.astype("float64"), **arguments}, upstream
        )
        _, to_x, gradients = value_and_gradients(layer, x, upstream)
        for name, actual in {"x": to_x, **gradients}.items():
            assert_allclose(actual, oracle[name], rtol=1e-4, atol=1e-4)


def test_the_magnitude_of_epsilon_counts():
    negative = compat.FilterResponseNormalization(epsilon=-0.5)
    x = draw()
    assert_array_equal(
        negative(x), compat.FilterResponseNormalization(epsilon=0.5)(x)
    )
    assert negative.get_config()["epsilon"] == 0.5


def test_masked_positions_count():
    layer = compat.FilterResponseNormalization()
    mask = np.zeros(SHAPE[:-1], bool)
    x = keras.ops.convert_to_tensor(draw())
    assert_array_equal(layer(x, mask=keras.ops.array(mask)), layer(x))


@pytest.mark.parametrize("axis", [(1, 2), [1, 2]])
def test_axis_may_be_a_list_or_a_tuple(axis):
    layer = compat.FilterResponseNormalization(axis=axis)
    assert layer.get_config()["axis"] == [1, 2]


@pytest.mark.parametrize(
    "axis", [-1, 1, None, "12", [1], [2, 1], [-3, -2], (1, 2, 3), [], {1, 2}]
)
def test_other_axes_are_refused(axis):
    with pytest.raises(ValueError, match=r"`axis`.*Received: axis="):
        compat.FilterResponseNormalization(axis=axis)


@pytest.mark.parametrize("name", ["activation", "groups", "tau_initializer"])
def test_options_unknown_to_tfa_raise_an_error(name):
    with pytest.raises(TypeError, match=name):
        compat.FilterResponseNormalization(**{name: "x"})
    with pytest.raises(TypeError, match="axis"):
        compat.TLU(axis=1)
    with pytest.raises(TypeError, match="max_value"):
        compat.TLU(max_value=6)
    with pytest.raises(ValueError, match="learned_epsilon='channel'"):
        compat.FilterResponseNormalization(learned_epsilon="channel")


@pytest.mark.parametrize("epsilon", [None, "1e-6", float("nan"), True])
def test_a_bad_epsilon_is_named(epsilon):
    with pytest.raises(ValueError, match="Received: epsilon="):
        compat.FilterResponseNormalization(epsilon=epsilon)


@each_frn
@each_tlu
def test_a_typo_is_refused(frn, tlu):
    for layer in (frn, tlu):
        with pytest.raises(ValueError, match="afine"):
            layer(afine=True)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 1, 5, 7, 3)])
def test_frn_wants_images(shape):
    with pytest.raises(ValueError, match="rank 4.*Received: input_shape="):
        compat.FilterResponseNormalization()(draw(shape))


def test_tlu_is_tied_to_one_size():
    with pytest.raises(ValueError, match=r"Received: input_shape=\(None, None"):
        compat.TLU()(keras.Input((None, None, 3)))
    layer = compat.TLU()
    layer.build(SHAPE)
    with pytest.raises(ValueError, match="incompatible"):
        layer(draw((2, 5, 6, 3)))


def test_importing_keras_norm_leaves_it_out():
    program = """
import sys

import keras
import keras_norm
print(keras.saving.get_registered_object("Addons>TLU"))
import keras_norm.compat
print(keras.saving.get_registered_object("Addons>TLU").__module__)
print("tensorflow" in sys.modules)
"""
    backend = keras.backend.backend().replace("tensorflow", "jax")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "keras_norm.compat", "False"]


@pytest.mark.parametrize("name", ["FilterResponseNormalization", "TLU"])
def test_docstring_examples_run(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(
        getattr(compat, name), name
    )
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0


# What TFA's own tests asked of these layers, asked of its heirs and of ours.

# Keras rounds the value of a constant to float32.
TOLERANCES = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-10}


@each_frn
@each_float
@pytest.mark.parametrize(
    "beta, learned_epsilon", [(1.0, False), (0.0, False), (0.5, True)]
)
def test_tfa_frn_of_one_channel(frn, dtype, beta, learned_epsilon):
    x = np.random.default_rng(0).uniform(size=(1, 28, 28, 1)).astype(dtype)
    layer = frn(
        beta_initializer=keras.initializers.Constant(beta),
        gamma_initializer="ones",
        learned_epsilon=learned_epsilon,
        dtype=dtype,
    )
    layer.build((None, 28, 28, 1))
    epsilon = 1e-6 + 1e-4 * learned_epsilon
    oracle = reference.frn(x.astype("float64"), {"beta": beta}, epsilon)
    y = layer(keras.ops.convert_to_tensor(x, dtype))
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert_allclose(y, oracle, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@each_frn
def test_tfa_training_moves_the_learned_epsilon(frn):
    layer = frn(beta_initializer="ones", learned_epsilon=True)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    before = to_numpy(layer.learned_epsilon).item()
    model.compile(loss="binary_crossentropy", optimizer="sgd")
    labels = np.arange(10.0).reshape(10, 1) % 2
    model.fit(draw((10, 8, 8, 3)) * 0.01, labels, epochs=1, verbose=0)
    assert to_numpy(layer.learned_epsilon).item() != before


@each_frn
@each_float
def test_tfa_frn_serializes(frn, dtype):
    layer = frn(beta_initializer="ones", dtype=dtype)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is frn
    assert again.get_config() == layer.get_config()


@each_frn
def test_tfa_frn_has_two_weights(frn):
    layer = frn()
    assert layer.compute_output_shape((8, 4, 4, 16)) == (8, 4, 4, 16)
    layer(draw((8, 4, 4, 16)))
    assert len(layer.trainable_variables) == len(layer.variables) == 2


@each_tlu
@each_float
@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, [0.0, 0.0, 0.3]),
        (
            {
                "affine": True,
                "alpha_initializer": "ones",
                "tau_initializer": "ones",
            },
            [-1.5, 1.0, 1.3],
        ),
    ],
)
def test_tfa_tlu_of_three_values(tlu, dtype, kwargs, expected):
    x = keras.ops.convert_to_tensor([[-2.5, 0.0, 0.3]], dtype)
    z = tlu(dtype=dtype, **kwargs)(x)
    assert keras.backend.standardize_dtype(z.dtype) == dtype
    assert_allclose(z, [expected], rtol=TOLERANCES[dtype])
