"""Command line of the program keras-norm.

Its commands are in `keras_norm.cli`, which is imported only to run one: Keras
takes seconds to start, and --help should not. For the same reason this module
is outside the package: `import keras_norm` imports Keras to register layers.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import threading

BACKENDS = ("tensorflow", "jax", "torch")

EXAMPLES = """\
examples:
  # list the batch normalization of a model and the activations behind it
  keras-norm inspect model.keras
  # show the changes without writing a file
  keras-norm convert model.keras --to frn --plan
  # RBN is numerically equivalent until it is trained: verify this
  keras-norm convert model.keras calibrated.keras --to rbn --verify
  # group normalization everywhere except in the stem
  keras-norm convert old.h5 out.keras --to gn --arg groups=16 --exclude 'stem*'

fold: batch normalization moves into the weights of the convolution or dense
layer before it or behind it. The outputs at inference stay the same, which is
verified on random inputs, and inference is faster. Training goes on with the
unfolded model.
  # write a model for inference without batch normalization
  keras-norm fold model.keras folded.keras
  # list the layers that stay and the reasons without writing a file
  keras-norm fold model.keras --plan
"""
MODEL = (
    "the model: a .keras file, a legacy .h5 file (also of Keras 2), or "
    "applications:NAME for a model of keras.applications, such as "
    "applications:ResNet50"
)
PATTERNS = (
    "a layer's name or path, with the wildcards * and ?; the name of a nested "
    "model matches all layers inside it"
)
# Lines of TensorFlow's C++ code, at levels below errors, and the errors of
# TensorFlow 2.16 to 2.19 that two libraries register the same plugin.
START_LINES = (
    "^WARNING: All log messages before absl::InitializeLog"
    "|^([0-9: .-]+)?[IW]([0-9]{4} [0-9:. ]+| )[^]]*[.]cc:[0-9]+]"
    "|^To enable the following instructions: "
    "|Unable to register cu[A-Z]+ factory: "
)


def main(arguments=None):
    """Runs the program; returns its exit code."""
    options = parse(arguments)
    try:
        cli = _import_cli()
        with _stoppable():
            return cli.main(options)
    except _StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except _Terminated as error:
        (number,) = error.args
    except KeyboardInterrupt:
        number = signal.SIGINT
    print("\nstopped; no incomplete file was written", file=sys.stderr)
    return 128 + number


def parse(arguments=None):
    """Parses the arguments; exits the program if they are invalid."""
    parser = argparse.ArgumentParser(
        prog="keras-norm",
        description="Lists the batch normalization of a Keras model, converts "
        "it to another normalization, or folds it for inference.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"keras-norm {_run_module('version')['__version__']}",
        help="print the version of keras-norm and exit",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    _define_inspect(commands)
    _define_convert(commands)
    _define_fold(commands)
    return parser.parse_args(arguments)


def _define_inspect(commands):
    command = commands.add_parser(
        "inspect",
        help="list the normalization layers of a model",
        description="Lists every normalization layer of a model with its path, "
        "its input shape, the activations that follow it, and, for batch "
        "normalization, whether `convert` can replace it.",
    )
    command.add_argument("model", metavar="MODEL", help=MODEL)
    _define_common(command)


def _define_convert(commands):
    command = commands.add_parser(
        "convert",
        help="replace batch normalization by another norm",
        description="Writes a new model with another normalization, and prints "
        "a table of the changes to every layer. The old file is not changed.",
    )
    _define_files(command)
    command.add_argument(
        "--to",
        metavar="NORM",
        required=True,
        help="replace batch normalization by this norm, one of "
        f"{', '.join(norm_names())}",
    )
    command.add_argument(
        "--arg",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_argument,
        help="pass an argument to the new layers, such as epsilon=1e-5; "
        "repeatable",
    )
    _define_selection(command, "convert")
    command.add_argument(
        "--activation",
        choices=("auto", "keep", "tlu"),
        default="auto",
        help="conversion of the ReLUs behind replaced layers: auto converts "
        "them to TLU for frn and keeps them for other norms; keep keeps all; "
        "tlu converts ReLU to TLU and ReLU6 to min(TLU, 6) for any norm "
        "(default: auto)",
    )
    command.add_argument(
        "--verify",
        action="store_true",
        help="run both models on random inputs and report the largest "
        "difference of their outputs; a difference is an error if the models "
        "should be numerically equivalent",
    )
    command.add_argument(
        "--keep-unreachable",
        action="store_true",
        help="keep batch normalization outside the functional graph, such as "
        "inside wrappers and composite layers, instead of raising an error",
    )
    _define_common(command)


def _define_fold(commands):
    command = commands.add_parser(
        "fold",
        help="fold batch normalization into the layers next to it",
        description="Writes a new model for inference whose batch "
        "normalization is folded into the convolutions and dense layers before "
        "or behind it, and prints a table of the layers that are folded and of "
        "those that stay, with the reasons. The old file is not changed.",
    )
    _define_files(command)
    _define_selection(command, "fold")
    command.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare the outputs of both models on random inputs; a "
        "difference is an error otherwise",
    )
    _define_common(command)


def _define_files(command):
    """Defines the files that a command reads and writes."""
    command.add_argument("model", metavar="IN", help=MODEL)
    command.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="the .keras file to write; leave it out with --plan",
    )
    command.add_argument(
        "--plan",
        action="store_true",
        help="print the planned changes without writing a file",
    )
    command.add_argument(
        "--inputs",
        metavar="FILE.npy",
        help="also verify on the inputs in this file: an .npy file with an "
        "array, or an .npz file with an array for each input name",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the file OUT if it exists",
    )


def _define_selection(command, verb):
    command.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help=f"{verb} only the batch normalization that matches PATTERN: "
        f"{PATTERNS}; repeatable",
    )
    command.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="keep the batch normalization that matches PATTERN, "
        "in the same form as for --include; repeatable",
    )


def _define_common(command):
    command.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    command.add_argument(
        "--weights",
        metavar="imagenet",
        choices=("imagenet",),
        help="download trained weights for applications:NAME (default: random "
        "initial weights)",
    )
    command.add_argument(
        "--import",
        metavar="MODULE",
        dest="modules",
        action="append",
        default=[],
        help="import a Python module that registers custom layers before the "
        "model is loaded; repeatable",
    )
    command.add_argument(
        "--unsafe",
        action="store_true",
        help="allow Python code in the file to run, which Lambda layers need, "
        "and accept implausible sizes; only for files that you trust",
    )


def _argument(text):
    """Parses `KEY=VALUE`; a value that is valid JSON is parsed as JSON."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form KEY=VALUE, such as epsilon=1e-5"
        )
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


class _StartError(Exception):
    """Keras or its backend is not installed or does not start."""


class _Terminated(BaseException):
    """A signal as an exception, so that temporary files are removed."""


def _import_cli():
    """Imports `keras_norm.cli`, and with it Keras and its backend."""
    try:
        with quiet_start():
            from keras_norm import cli
    except Exception as error:
        raise _StartError(_advice(error)) from error
    return cli


def _advice(error):
    """Returns one line that says how to make Keras start."""
    text = " ".join(str(error).split())[:200]
    missing = getattr(error, "name", None)
    wanted = os.environ.get("KERAS_BACKEND", "")
    installed = [name for name in BACKENDS if _is_installed(name)]
    if not installed:
        return (
            "Keras needs a backend, and none is installed: run pip install "
            f"'keras_norm[tensorflow]', or install jax or torch ({text})"
        )
    if missing in BACKENDS or "backend" in text:
        return (
            f"the backend {missing or wanted!r} is not installed: run pip "
            f"install {missing if missing in BACKENDS else 'tensorflow'}, or "
            f"set KERAS_BACKEND={installed[0]}, which is installed ({text})"
        )
    return f"Keras does not start: {type(error).__name__}: {text}"


def _is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def norm_names():
    """Returns the names of the norms without importing Keras."""
    return list(_run_module("norm_table")["NORMS"])


def _run_module(name):
    """Returns the globals of a module that imports nothing from the package.

    An import would import the package first, which imports Keras.
    """
    package = importlib.util.find_spec("keras_norm").origin
    return runpy.run_path(str(pathlib.Path(package).with_name(f"{name}.py")))


@contextlib.contextmanager
def _stoppable():
    """Makes SIGTERM and SIGHUP raise an exception in the main thread."""

    def stop(number, _):
        raise _Terminated(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)
        for number in set(numbers):
            # nohup ignores SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet_start():
    """Hides the lines that TensorFlow prints whenever it is imported.

    All other output stays, also the message of an import that ends the process.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    grep = shutil.which("grep")
    if grep is None or sys.stderr is None or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    process = subprocess.Popen(
        [grep, "--line-buffered", "-Ev", START_LINES],
        stdin=subprocess.PIPE,
        stdout=stderr,
        start_new_session=True,  # Ctrl-C is for this process.
    )
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        # Processes that the import has started may still hold the pipe.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)


if __name__ == "__main__":
    sys.exit(main())
