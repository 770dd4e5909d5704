"""The command line of keras-norm."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
import keras_norm_cli
from keras_norm.saving import load
from tests.conversion import small_models


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_models.build("residual").save("model.keras")
    return tmp_path


def run(capfd, *arguments):
    code = keras_norm_cli.main([str(argument) for argument in arguments])
    output, errors = capfd.readouterr()
    return code, output, errors


def test_convert_writes_a_model_and_prints_a_table(folder, capfd):
    before = pathlib.Path("model.keras").read_bytes()
    code, output, errors = run(
        capfd, "convert", "model.keras", "out.keras", "--to", "frn"
    )
    assert code == 0 and errors == (
        "wrote out.keras: import keras_norm before "
        "keras.saving.load_model('out.keras')\n"
    )
    assert "first_relu: TLU" in output and "3 to FRN. 2 TLU created" in output
    model = keras.saving.load_model("out.keras")
    assert type(model.get_layer("first_bn")) is keras_norm.FRN
    assert pathlib.Path("model.keras").read_bytes() == before


def test_verify_prints_the_largest_difference(folder, capfd):
    inputs = small_models.draw(keras.saving.load_model("model.keras"), batch=3)
    np.save("inputs.npy", inputs)
    code, output, _ = run(
        capfd, "convert", "model.keras", "out.keras", "--to=rbn", "--verify"
    )
    assert code == 0 and "verified on 2 random samples" in output
    code, output, _ = run(
        capfd, "convert", "model.keras", "out.keras", "--to=sync_bn",
        "--inputs=inputs.npy", "--overwrite",
    )  # fmt: skip
    assert (
        code == 0
        and "verified on 3 given samples: largest difference 0" in (output)
    )


def test_plan_writes_nothing(folder, capfd):
    code, output, errors = run(
        capfd, "convert", "model.keras", "--to=gn", "--plan",
        "--include=*_bn", "--exclude", "first_bn", "--arg", "groups=2",
    )  # fmt: skip
    assert code == 0 and errors == ""
    assert "2 to GroupNormalization, 1 kept" in output
    assert os.listdir(folder) == ["model.keras"]


def test_json_is_the_only_output(folder, capfd):
    arguments = "convert", "model.keras", "--to=frn", "--plan", "--json"
    _, output, _ = run(capfd, *arguments)
    assert json.loads(output)["num_thresholds"] == 2
    _, output, _ = run(capfd, "inspect", "model.keras", "--json")
    data = json.loads(output)
    assert data["parameters"] == 420
    paths = [entry["path"] for entry in data["batch_normalizations"]]
    assert sorted(paths) == ["first_bn", "second_bn", "shortcut_bn"]


def test_inspect_lists_normalization_layers(folder, capfd):
    small_models.wrapped().save("wrapped.keras")
    code, output, _ = run(capfd, "inspect", "model.keras")
    assert code == 0 and "first_relu: relu" in output
    assert (
        "420 parameters, 3 batch normalizations, 0 outside the functional graph"
        in output
    )
    code, output, _ = run(capfd, "inspect", "wrapped.keras")
    assert code == 0 and "no: inside 'wrapper', a TimeDistributed" in output


def test_inspect_accepts_an_application(folder, capfd):
    code, output, errors = run(capfd, "inspect", "applications:MobileNetV2")
    assert code == 0 and "52 batch normalizations" in output
    assert errors == "MobileNetV2 has random initial weights.\n"


def test_keep_unreachable_keeps_layers_outside_the_graph(folder, capfd):
    small_models.wrapped().save("wrapped.keras")
    arguments = "convert", "wrapped.keras", "out.keras", "--to=frn"
    code, output, errors = run(capfd, *arguments)
    assert (
        code == 1 and "outside the functional graph" in errors and output == ""
    )
    assert not os.path.exists("out.keras")
    code, output, _ = run(capfd, *arguments, "--keep-unreachable")
    assert code == 0 and "2 unreachable" in output


def test_custom_layers_are_imported_by_name(folder, capfd):
    pathlib.Path("my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    program = (
        "import keras, my_layers\n"
        "x = keras.Input((3,))\n"
        "y = keras.layers.BatchNormalization()(my_layers.Twice()(x))\n"
        "keras.Model(x, y).save('custom.keras')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder)
    code, _, errors = run(capfd, "inspect", "custom.keras")
    assert code == 1 and "'mine>Twice'" in errors and "--import" in errors
    code, output, _ = run(
        capfd, "inspect", "custom.keras", "--import=my_layers"
    )
    assert code == 0 and "1 batch normalization" in output


def prepare_bad_files():
    pathlib.Path("random.keras").write_bytes(bytes(range(256)))
    pathlib.Path("empty.keras").touch()
    whole = pathlib.Path("model.keras").read_bytes()
    pathlib.Path("cut.keras").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile("other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    os.makedirs("saved_model")
    pathlib.Path("saved_model/saved_model.pb").touch()
    keras.Sequential([keras.Input((2,)), layers.Dense(2)]).save("plain.keras")
    small_models.build("with_lambda").save("lambda.keras")
    np.save("i.npy", np.zeros((2, 5), "float32"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("missing.keras out.keras --to=frn", "does not exist"),
        ("random.keras out.keras --to=frn", "neither a .keras archive nor"),
        ("empty.keras out.keras --to=frn", "is empty"),
        ("cut.keras out.keras --to=frn", "damaged or truncated"),
        ("other.keras out.keras --to=frn", "config.json is missing"),
        ("saved_model out.keras --to=frn", "is a SavedModel"),
        ("plain.keras out.keras --to=frn", "has no batch normalization"),
        ("lambda.keras out.keras --to=frn", "--unsafe"),
        ("applications:VGG6 out.keras --to=frn", "nearest name"),
        ("model.keras out.keras --to=frm", "Did you mean 'frn'"),
        ("model.keras out.keras --to=gn --arg groups=3", "groups=3"),
        ("model.keras out.keras --to=frn --arg eps=3", "'eps': 3"),
        ("model.keras out.keras --to=frn --include=x", "matches no batch"),
        ("model.keras model.keras --to=frn", "--overwrite"),
        # The target is checked before the source is read.
        ("missing.keras model.keras --to=frn", "--overwrite"),
        ("model.keras out.h5 --to=frn", "does not end in .keras"),
        ("model.keras nowhere/out.keras --to=frn", "does not exist"),
        ("model.keras --to=frn", "either OUT"),
        ("model.keras out.keras --to=frn --plan", "either OUT"),
        ("model.keras out.keras --to=frn --import=nix", "--import nix failed"),
        ("model.keras out.keras --to=bn --inputs=nix", "--inputs must be an"),
        ("model.keras out.keras --to=bn --inputs=i.npy", "the given inputs"),
        ("model.keras out.keras --to=bn --weights=imagenet", "for a file"),
    ],
)  # fmt: skip
def test_invalid_input_prints_a_one_line_error(
    arguments, message, folder, capfd
):
    prepare_bad_files()
    before = sorted(os.listdir())
    code, output, errors = run(capfd, "convert", *arguments.split())
    assert (code, output) == (1, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert message in errors
    assert sorted(os.listdir()) == before


def test_unsafe_runs_python_code_and_prints_a_note(folder, capfd):
    small_models.build("with_lambda").save("lambda.keras")
    code, _, errors = run(
        capfd, "convert", "lambda.keras", "out.keras", "--to=bn", "--unsafe",
        "--verify",
    )  # fmt: skip
    assert code == 0 and "was allowed to run (unsafe)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["convert", "model.keras"], "required: --to"),
        (["convrt"], "invalid choice: 'convrt'"),
        (["convert", "a", "b", "--to=frn", "--arg=x"], "KEY=VALUE"),
        (["convert", "a", "b", "--to=frn", "--activation=x"], "'auto'"),
    ],
)
def test_invalid_arguments_print_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        keras_norm_cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["inspect"], ["convert"]])
def test_help_does_not_import_keras(command):
    # Without Keras, whose start takes seconds.
    program = "import sys, keras_norm_cli\ntry: keras_norm_cli.main()\n"
    program += "finally: assert 'keras' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: keras-norm") and done.stderr == ""


def test_help_names_every_norm(capsys):
    with pytest.raises(SystemExit):
        keras_norm_cli.main(["convert", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(keras_norm.names()) <= set(words)


def test_installed_program_prints_only_its_output(folder):
    script = pathlib.Path(sys.executable).with_name("keras-norm")
    done = subprocess.run(
        [script, "inspect", "model.keras"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "3 batch normalizations" in done.stdout and done.stderr == ""


def test_closed_pipe_stops_the_program_quietly(folder):
    script = pathlib.Path(sys.executable).with_name("keras-norm")
    done = subprocess.run(
        f"{script} inspect model.keras | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_control_c_prints_one_line(folder, capfd, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "load_model", stop)
    code, output, errors = run(
        capfd, "convert", "model.keras", "out.keras", "--to=gn"
    )
    assert (code, output) == (130, "")
    assert errors.endswith("stopped; no incomplete file was written\n")
    assert os.listdir(folder) == ["model.keras"]


# While a library is imported, some code in it may swallow the interrupt.
@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.5, 8.0])
def test_control_c_leaves_no_file(seconds, folder):
    script = pathlib.Path(sys.executable).with_name("keras-norm")
    arguments = "convert", "applications:EfficientNetB7", "out.keras", "--to=gn"
    # A shell's background jobs, such as this test may be, ignore it.
    command = ["env", "--default-signal=INT", script, *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.endswith("stopped; no incomplete file was written\n")
    assert "Traceback" not in errors
    assert os.listdir(folder) == ["model.keras"]
