"""Error messages for invalid names, arguments and paths."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from keras_norm.errors import ConversionError

PUBLIC = {name for name in keras_norm.__all__ if not name.startswith("_")}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FRN", "frn"),
        ("RBN", "rbn"),
        ("GN", "gn"),
        ("Sync_BN", "sync_bn"),
        ("EvalNorm", "eval_norm"),
        ("froze", "frozen"),
    ],
)
def test_a_name_in_another_case_is_suggested(name, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
        keras_norm.get(name)


@pytest.mark.parametrize("name", [None, 3, ["frn"], {"frn": 1}, "", b"frn"])
def test_an_invalid_name_is_a_value_error(name):
    with pytest.raises(ValueError, match="Known norms: bn, .* Received: "):
        keras_norm.get(name)


def test_a_layer_instance_raises_an_error():
    with pytest.raises(ValueError, match="pass its class"):
        keras_norm.get(keras_norm.FRN())


@pytest.mark.parametrize("name", keras_norm.names())
@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_an_unknown_argument_fails_at_once(name, kind):
    with pytest.raises(kind) as raised:
        keras_norm.get(name, epsilom=1e-3)
    line = str(raised.value)
    assert f"{name!r} takes no argument 'epsilom'" in line
    assert ("Did you mean 'epsilon'" in line) == (name != "none")
    assert "It takes: " in line and "dtype, " in line and "trainable" in line
    assert line.endswith("Received: kwargs={'epsilom': 0.001}")


@pytest.mark.parametrize("name", keras_norm.names())
def test_listed_arguments_are_accepted(name):
    with pytest.raises(ValueError) as raised:
        keras_norm.get(name, nothing=1)
    listed = str(raised.value).partition("It takes: ")[2].partition(". Rec")[0]
    layer = keras_norm.get(name).layer()
    defaults = {**layer.get_config(), "autocast": True}
    for argument in listed.split(", "):
        if argument == "groups":
            continue
        norm = keras_norm.get(name, **{argument: defaults.get(argument)})
        norm.layer()


@pytest.mark.parametrize(
    ("name", "argument"), [("in", "groups"), ("ln", "groups"), ("frn", "axis")]
)
def test_a_fixed_argument_raises_an_error(name, argument):
    with pytest.raises(TypeError, match=f"takes no argument '{argument}'"):
        keras_norm.get(name, **{argument: 2})


def test_other_makers_of_layers_are_asked_too():
    class Mine(layers.BatchNormalization):
        def __init__(self, power=2, **kwargs):
            super().__init__(**kwargs)

    norm = keras_norm.get(Mine, power=3, momentum=0.5, name="mine")
    assert norm.layer().momentum == 0.5
    with pytest.raises(TypeError, match="Did you mean 'power'"):
        keras_norm.get(Mine, powr=3)
    with pytest.raises(TypeError, match="takes no argument 'power'"):
        keras_norm.get(layers.BatchNormalization, power=3)
    with pytest.raises(TypeError, match="takes no argument 'x'"):
        keras_norm.get(keras_norm.get("frn", epsilon=1e-3), x=3)
    # What takes anything is not judged.
    assert keras_norm.get(lambda axis, **kwargs: Mine(axis), x=1).kwargs


def test_converting_names_the_argument_too():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.BatchNormalization()]
    )
    with pytest.raises(ConversionError, match="Did you mean 'epsilon'"):
        keras_norm.convert(model, "frn", epsilom=1e-3)


@pytest.mark.parametrize("statistics", ["batch", "instance"])
def test_groups_of_rbn_go_with_group_statistics(statistics):
    with pytest.raises(ValueError, match=r"groups=4, statistics='"):
        keras_norm.RBN(groups=4, statistics=statistics)
    with pytest.raises(ValueError, match="groups=4"):
        keras_norm.get("rbn", groups=4).layer()
    assert keras_norm.RBN(groups=4, statistics="group").groups == 4
    # Files of earlier versions may hold this key, which had no effect.
    layer = keras_norm.RBN(statistics=statistics)
    config = {**layer.get_config(), "groups": 4}
    again = keras_norm.RBN.from_config(config)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype("float32")
    values = (keras.ops.convert_to_numpy(f(x)) for f in (layer, again))
    assert np.array_equal(*values)
    assert keras_norm.RBN.from_config(again.get_config()).groups == 4


@pytest.mark.parametrize("path", ["model.keras", pathlib.Path("old.h5")])
@pytest.mark.parametrize(
    "function", [keras_norm.convert, keras_norm.plan_conversion]
)
def test_a_path_instead_of_a_model_raises_an_error(path, function):
    with pytest.raises(ConversionError) as raised:
        function(path, "frn")
    line = str(raised.value)
    assert "`model` must be a Keras model" in line
    assert f"keras.saving.load_model('{path}', compile=False)" in line
    assert f"keras-norm convert {path} OUT.keras --to NORM" in line
    assert line.endswith(f"Received: model={path!r}")


@pytest.mark.parametrize("model", [None, 3, {}, object(), np.zeros(3)])
def test_other_objects_raise_an_error(model):
    with pytest.raises(ConversionError, match="Received: model of type"):
        keras_norm.convert(model, "frn")


def test_dir_lists_the_public_names():
    names = set(dir(keras_norm))
    modules = {"analysis", "compat", "training"}
    assert names == PUBLIC | {"__version__"} | modules


def test_modules_are_imported_when_they_are_used():
    backend = keras.backend.backend()
    code = (
        "import sys, keras_norm\n"
        "assert 'keras_norm.analysis' not in sys.modules\n"
        "assert 'keras_norm.training' not in sys.modules\n"
        "print(keras_norm.analysis.__name__, keras_norm.compat.__name__)\n"
        "try: print(keras_norm.training.ReplicaModel.__name__)\n"
        "except AttributeError as error: print(error)\n"
        "print(hasattr(keras_norm, 'trainings'))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed[0] == "keras_norm.analysis keras_norm.compat"
    if backend == "tensorflow":
        assert "ReplicaModel" in printed[1]
    assert printed[-1] == "False"


def test_the_docstring_lists_the_entry_points():
    for name in ("convert", "FRN", "RBN", "get", "training", "load_model"):
        assert name in keras_norm.__doc__
