"""Output, errors and signals of the program keras-norm."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
import keras_norm_cli
from keras_norm.saving import load
from tests.saving import hostile_files

ROOT = pathlib.Path(__file__).parent.parent.parent
IMAGE = (8, 8, 4)


def run(capfd, *arguments):
    code = keras_norm_cli.main([str(argument) for argument in arguments])
    output, errors = capfd.readouterr()
    return code, output, errors


def program(code, environment=()):
    """Runs Python code in a new process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": "/"}
        | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )


def chain(*parts, shape=IMAGE, **options):
    x = y = keras.Input(shape)
    for part in parts:
        y = part(y)
    return keras.Model(x, y, **options)


@keras.saving.register_keras_serializable("field_command")
class InstanceNorm(layers.Layer):
    """Custom norm, recognized by the name of its class."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=(1, 2), keepdims=True)


@keras.saving.register_keras_serializable("field_command")
class Block(layers.Layer):
    """Composite layer, which has no functional graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.LayerNormalization(name="inner_norm")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


@keras.saving.register_keras_serializable("field_command")
class Subclassed(keras.Model):
    """Model without a functional graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras_norm.FRN(name="own_norm")
        self.bn = layers.BatchNormalization(name="own_bn")

    def build(self, shape):
        self.norm.build(shape)
        self.bn.build(shape)

    def call(self, x):
        return self.bn(self.norm(x))


def every_norm():
    return chain(
        keras_norm.FRN(name="frn"),
        keras_norm.TLU(name="tlu"),
        keras_norm.RBN(name="rbn"),
        layers.ReLU(name="relu"),
        keras_norm.EvalNorm(name="eval"),
        layers.BatchNormalization(name="bn"),
        layers.GroupNormalization(2, name="gn"),
        layers.LayerNormalization(name="ln"),
        layers.UnitNormalization(name="unit"),
        layers.SpectralNormalization(layers.Conv2D(4, 1), name="spectral"),
        InstanceNorm(name="custom"),
        Block(name="block"),
        layers.Dropout(0.1),
        keras_norm.BatchNormalization(name="own"),
        chain(keras_norm.FRN(name="deep"), name="inside"),
    )


NORMS = {
    "frn": "FRN",
    "rbn": "RBN",
    "eval": "EvalNorm",
    "bn": "BatchNormalization",
    "gn": "GroupNormalization",
    "ln": "LayerNormalization",
    "unit": "UnitNormalization",
    "spectral": "SpectralNormalization",
    "custom": "InstanceNorm",
    "block/inner_norm": "LayerNormalization",
    "own": "BatchNormalization",
    "inside/deep": "FRN",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_inspect_shows_every_normalization_layer(folder, capfd):
    every_norm().save("model.keras")
    code, output, errors = run(capfd, "inspect", "model.keras")
    assert (code, errors) == (0, "")
    rows = {
        line.split()[0]: line for line in output.splitlines() if line.strip()
    }
    assert {name: rows[name].split()[1] for name in NORMS} == NORMS
    assert "tlu: tlu" in rows["frn"] and "relu: relu" in rows["rbn"]
    assert "2 batch normalizations, 0 outside the functional graph" in output
    assert "2 FRN, 1 RBN, 1 EvalNorm, 1 GroupNormalization" in output
    code, output, _ = run(capfd, "inspect", "model.keras", "--json")
    data = json.loads(output)
    found = {e["path"]: e["layer"] for e in data["normalizations"]}
    assert code == 0 and found == NORMS
    paths = [e["path"] for e in data["batch_normalizations"]]
    assert paths == ["bn", "own"]


def plain():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)])


def subclassed():
    model = Subclassed()
    model.build((None, *IMAGE))
    return model


def unbuilt():
    return keras.Sequential([layers.BatchNormalization(), layers.Dense(3)])


READABLE = {
    "plain": (plain, "15 parameters, 0 batch normalizations"),
    "empty": (lambda: chain(shape=(3,)), "0 parameters"),
    "subclassed": (
        subclassed,
        "1 batch normalization, 1 outside the functional graph",
    ),
    "unbuilt": (
        unbuilt,
        "not built, 1 batch normalization, 1 outside the functional graph",
    ),
    "compiled": (lambda: chain(keras_norm.FRN()), "1 FRN"),
}


@pytest.mark.parametrize("kind", READABLE)
def test_inspect_reads_every_model(kind, folder, capfd):
    make, expected = READABLE[kind]
    model = make()
    if kind == "compiled":
        model.compile("adam", "mse")
    with warnings.catch_warnings():
        # Keras warns of a model without weights.
        warnings.simplefilter("ignore")
        model.save("model.keras")
    code, output, errors = run(capfd, "inspect", "model.keras")
    assert (code, errors) == (0, "") and expected in output
    code, output, errors = run(capfd, "inspect", "model.keras", "--json")
    assert (code, errors) == (0, "") and json.loads(output)


# What a name may do to a terminal: color, a bell, a title, a cursor that goes
# back, the end of a line, markup of rich, a direction of writing.
# https://www.cyberark.com/resources/threat-research-blog/dont-trust-this-title
EVIL = (
    "\x1b[31m\x1b]0;title\x07\x9b1m\b\r\n\u202e\u200b"
    "[red][link=http:x]:smile:[bold"
)


@pytest.mark.parametrize("arguments", [["inspect"], ["convert", "--plan"]])
def test_control_characters_in_names_are_escaped(arguments, folder, capfd):
    model = chain(
        layers.BatchNormalization(name=f"bn{EVIL}"),
        layers.ReLU(name=f"relu{EVIL}"),
        name=f"model{EVIL}",
    )
    model.compile("adam", "mse")
    model.save("model.keras")
    command, *rest = arguments
    to = ["--to=frn"] if rest else []
    for path in "model.keras", "mo\x1b[31mdel[red].keras":
        pathlib.Path("model.keras").rename(path)
        code, output, errors = run(capfd, command, path, *rest, *to)
        pathlib.Path(path).rename("model.keras")
        assert code == 0
        for line in (output + errors).split("\n"):
            assert line.isprintable(), line
        words = "".join(output.split())
        escaped = r"\x1b[31m\x1b]0;title\x07\x9b1m\x08\r\n\u202e\u200b"
        assert f"model{escaped}[red][link=http:x]:smile:[bold" in words
        # A cell is folded.
        assert escaped[:12] in words.split("─")[-1].partition("model")[0]
    code, output, _ = run(capfd, command, "model.keras", *rest, *to, "--json")
    assert code == 0 and output.isascii() and json.loads(output)


def test_control_characters_in_errors_are_escaped(folder, capfd):
    made = hostile_files.Files(folder)
    edits = {
        "class": hostile_files.insert(
            hostile_files.layer(EVIL, "keras.layers")
        ),
        "module": hostile_files.insert(hostile_files.layer("X", EVIL)),
        "argument": hostile_files.put(
            *hostile_files.CONV, "config", EVIL, value=1
        ),
        "name": hostile_files.put(
            *hostile_files.CONV, "config", "name", value=f"{EVIL}/"
        ),
    }
    for name, edit in edits.items():
        path = folder / f"{name}{EVIL.replace('/', '')}.keras"
        made.edit(path, edit)
        code, output, errors = run(capfd, "inspect", path)
        assert (code, output) == (1, "")
        assert errors.count("\n") == 1 and errors[:-1].isprintable(), errors
    made.write(folder / "v.keras", metadata=json.dumps({"keras_version": EVIL}))
    code, _, errors = run(capfd, "inspect", "v.keras")
    assert code == 1 and errors.count("\n") == 1 and errors[:-1].isprintable()
    code, _, errors = run(capfd, "inspect", f"{EVIL}.keras")
    assert code == 1 and errors.count("\n") == 1 and errors[:-1].isprintable()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_during_a_write_leaves_no_file(
    number, folder, capfd, monkeypatch
):
    chain(layers.BatchNormalization()).save("model.keras")
    replace = os.replace

    def stop(*arguments):
        assert len(os.listdir()) == 2
        os.kill(os.getpid(), number)
        replace(*arguments)

    monkeypatch.setattr(os, "replace", stop)
    # What runs in the background may ignore it.
    outside = signal.signal(number, signal.SIG_DFL)
    try:
        before = signal.getsignal(number)
        code, output, errors = run(
            capfd, "convert", "model.keras", "out.keras", "--to=rbn"
        )
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)
    assert (code, output) == (128 + number, "")
    assert errors.endswith("stopped; no incomplete file was written\n")
    assert os.listdir() == ["model.keras"]


def test_signal_handlers_are_unchanged_in_a_thread(folder, capfd):
    chain(layers.BatchNormalization()).save("model.keras")
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(
            keras_norm_cli.main(["inspect", "model.keras"])
        )
    )
    thread.start()
    thread.join()
    assert codes == [0]


def test_version_does_not_import_keras():
    done = program(
        "import sys, keras_norm_cli\n"
        "try: keras_norm_cli.main(['--version'])\n"
        "finally: assert 'keras' not in sys.modules"
    )
    expected = f"keras-norm {keras_norm.__version__}\n"
    assert (done.stdout, done.stderr) == (expected, "")


# From TensorFlow 2.16, 2.18 and 2.21, with and without a GPU.
START_LINES = """\
2026-01-01 00:00:00.000001: I tensorflow/core/util/port.cc:113] oneDNN custom
2026-01-01 00:00:00.000002: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc\
:38] TF-TRT Warning: Could not find TensorRT
2026-01-01 00:00:00.000003: E external/local_xla/xla/stream_executor/cuda/cuda_\
fft.cc:485] Unable to register cuFFT factory: Attempting to register factory
WARNING: All log messages before absl::InitializeLog() is called are written to
E0000 00:00:1732.000004 7 cuda_dnn.cc:8310] Unable to register cuDNN factory: A
I0000 00:00:1732.000005   18836 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1732.000006   18836 cudart_stub.cc:31] Could not find cuda drivers
I0000 00:00:1732.000007 7 cpu_feature_guard.cc:227] This TensorFlow binary is
To enable the following instructions: AVX2 AVX512F FMA, in other operations
"""
ERRORS = """\
E0000 00:00:1732.000008 7 cuda_platform.cc:52] failed call to cuInit: CUDA error
F0000 00:00:1732.000009 7 cpu_feature_guard.cc:34] The TensorFlow library was
2026-01-01 00:00:00.000010: F tensorflow/core/platform/cpu_feature_guard.cc:37]
WARNING: the module is deprecated
Illegal instruction in I0000
"""
IMPORT = """
import os, sys
import keras_norm_cli

with keras_norm_cli.quiet_start():
    os.write(2, {text!r}.encode())
    {end}
print("done", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [("pass", 0, "done\n"), ("os.abort()", -signal.SIGABRT, "")],
)
def test_only_start_lines_of_tensorflow_are_hidden(end, code, last):
    done = program(IMPORT.format(text=START_LINES + ERRORS, end=end))
    assert (done.returncode, done.stderr) == (code, ERRORS + last)


def test_closed_standard_error_does_not_prevent_the_start():
    done = program(
        "import os, subprocess, sys\n"
        "os.close(2)\n"
        "code = 'import keras_norm_cli\\n'\n"
        "code += 'with keras_norm_cli.quiet_start(): print(1)'\n"
        "sys.exit(subprocess.call([sys.executable, '-c', code]))"
    )
    assert (done.returncode, done.stdout) == (0, "1\n")


ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import keras_norm_cli
sys.exit(keras_norm_cli.main(["inspect", "model.keras"]))
"""


@pytest.mark.parametrize(
    ("absent", "environment", "message"),
    [
        (("tensorflow", "jax", "torch"), {}, "pip install 'keras_norm[tens"),
        (
            ("tensorflow",),
            {"KERAS_BACKEND": "tensorflow"},
            "'tensorflow'",
        ),
        ((), {"KERAS_BACKEND": "nix"}, "the backend 'nix' is not installed"),
    ],
)
def test_missing_backend_prints_a_one_line_error(absent, environment, message):
    done = program(ABSENT.format(absent=absent), environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr


def test_printed_load_command_works(folder, capfd):
    chain(layers.BatchNormalization()).save("model.keras")
    _, _, errors = run(capfd, "convert", "model.keras", "out.keras", "--to=frn")
    assert errors == (
        "wrote out.keras: import keras_norm before "
        "keras.saving.load_model('out.keras')\n"
    )
    done = program(
        "import keras, keras_norm; keras.saving.load_model('out.keras')",
        {"KERAS_BACKEND": keras.backend.backend()},
    )
    assert done.returncode == 0, done.stderr


def test_characters_outside_the_encoding_are_escaped(folder, monkeypatch):
    chain(layers.BatchNormalization(name="größe")).save("model.keras")
    buffer = io.BytesIO()
    terminal = io.TextIOWrapper(buffer, "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert keras_norm_cli.main(["inspect", "model.keras"]) == 0
    terminal.flush()
    assert b"gr\\xf6\\xdfe" in buffer.getvalue()


def large():
    inputs = keras.Input((60000, 60000, 3), name="large")
    return keras.Model(inputs, layers.BatchNormalization()(inputs))


def widened():
    # Small inputs, and a tensor inside that is not.
    inputs = keras.Input((8, 8, 3))
    outputs = layers.BatchNormalization()(inputs)
    return keras.Model(inputs, layers.UpSampling2D(4000)(outputs))


@pytest.mark.parametrize("make", [large, widened])
def test_too_large_inputs_print_a_one_line_error(make, folder, capfd):
    make().save("model.keras")
    code, output, errors = run(
        capfd, "convert", "model.keras", "out.keras", "--to=rbn", "--verify"
    )
    assert (code, output) == (1, "") and errors.count("\n") == 1
    assert "too large to be verified" in errors
    assert os.listdir() == ["model.keras"]
    assert run(capfd, "inspect", "model.keras")[0] == 0


@pytest.mark.parametrize(
    ("norm", "word"),
    [("rbn", "verified"), ("sync_bn", "verified"), ("frn", "compared")],
)
def test_output_says_verified_only_for_equivalent_models(
    norm, word, folder, capfd
):
    chain(layers.BatchNormalization()).save("model.keras")
    code, output, _ = run(
        capfd, "convert", "model.keras", "out.keras", f"--to={norm}", "--verify"
    )
    words = {"verified", "compared"}.intersection(output.split())
    assert code == 0 and words == {word}


@pytest.mark.parametrize("norm", ["rbn", "bn", "frn", "gn", "none"])
@pytest.mark.parametrize("factor", [3e38, np.nan])
def test_nonfinite_outputs_print_an_error(norm, factor, folder, capfd):
    chain(
        layers.BatchNormalization(),
        layers.Rescaling(float(factor)),
        layers.Rescaling(10.0),
    ).save("model.keras")
    code, output, errors = run(
        capfd, "convert", "model.keras", "out.keras", f"--to={norm}", "--verify"
    )
    assert (code, output) == (1, "") and errors.count("\n") == 1
    assert "are not finite" in errors and not os.path.exists("out.keras")


def write_long(path):
    """Writes an array of 10 TB whose file ends after its header."""
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False}
        np.lib.format.write_array_header_1_0(
            file, {**header, "shape": (10**6, 10**6, 3)}
        )


@pytest.mark.parametrize(
    "write",
    [
        write_long,
        lambda path: pathlib.Path(path).write_bytes(b"PK\x03\x04" + bytes(99)),
        lambda path: pathlib.Path(path).mkdir(),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
        lambda path: pathlib.Path(path).touch(),
    ],
)
def test_invalid_inputs_print_a_one_line_error(write, folder, capfd):
    chain(layers.BatchNormalization()).save("model.keras")
    write("inputs.npy")
    code, output, errors = run(
        capfd, "convert", "model.keras", "out.keras", "--to=bn",
        "--inputs=inputs.npy",
    )  # fmt: skip
    assert (code, output) == (1, "") and errors.count("\n") == 1
    assert "--inputs must be an .npy or .npz file" in errors


def test_unexpected_error_prints_one_line(folder, capfd, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("one\ntwo\x1b[31m")

    monkeypatch.setattr(load, "load_model", fail)
    code, output, errors = run(capfd, "inspect", "model.keras")
    assert (code, output) == (1, "")
    assert errors == "error: RuntimeError: one two\\x1b[31m\n"
