"""keras-norm: the program's arguments.

What does the work, `keras_norm.cli`, is imported only when there is work: Keras
takes seconds to start, and help should not.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import runpy
import signal
import sys
import threading

BACKENDS = ("tensorflow", "jax", "torch")

EXAMPLES = """\
examples:
  # which batch normalization a model has, and what follows it
  keras-norm inspect model.keras
  # what would become of it; nothing is written
  keras-norm convert model.keras --to frn --plan
  # RBN computes the same until it is trained: proved on random inputs
  keras-norm convert model.keras calibrated.keras --to rbn --verify
  # group normalization in all but the stem
  keras-norm convert old.h5 out.keras --to gn --arg groups=16 --exclude 'stem*'
"""
MODEL = (
    "a .keras file, a legacy .h5 file (of Keras 2 too), or applications:NAME, "
    "a network of keras.applications such as applications:ResNet50"
)
PATTERNS = (
    "a name or path with * and ?; the name of a nested model stands for all "
    "inside it"
)


def main(arguments=None):
    """Runs the program; returns its exit code."""
    options = parse(arguments)
    try:
        cli = _start()
        with _stoppable():
            return cli.main(options)
    except _Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except _Terminated as error:
        (number,) = error.args
    except KeyboardInterrupt:
        number = signal.SIGINT
    print("\nstopped; a file is written whole or not at all", file=sys.stderr)
    return 128 + number


def parse(arguments=None):
    """The options of a command line; ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="keras-norm",
        description="Shows the batch normalization of a Keras model, and "
        "converts it to another normalization.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"keras-norm {_run_module('version')['__version__']}",
        help="print the version and exit",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    _define_inspect(commands)
    _define_convert(commands)
    return parser.parse_args(arguments)


def _define_inspect(commands):
    command = commands.add_parser(
        "inspect",
        help="show the normalization layers of a model",
        description="Lists every normalization layer of a model: where it is, "
        "its shape, which activations follow it, and of batch normalization "
        "whether `convert` reaches it.",
    )
    command.add_argument("model", metavar="MODEL", help=MODEL)
    _define_common(command)


def _define_convert(commands):
    command = commands.add_parser(
        "convert",
        help="replace batch normalization by another norm",
        description="Writes a new model with another normalization. The old "
        "file stays as it is; a table says what became of every layer.",
    )
    command.add_argument("model", metavar="IN", help=MODEL)
    command.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="the .keras file to write; not with --plan",
    )
    command.add_argument(
        "--to",
        metavar="NORM",
        required=True,
        help=", ".join(norm_names()),
    )
    command.add_argument(
        "--arg",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_argument,
        help="an argument of the new layers, such as epsilon=1e-5; repeatable",
    )
    command.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help=f"convert these alone: {PATTERNS}; repeatable",
    )
    command.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="leave these alone; repeatable",
    )
    command.add_argument(
        "--activation",
        choices=("auto", "keep", "tlu"),
        default="auto",
        help="the ReLUs that follow: auto, TLU for frn and as they are for "
        "all others; keep, as they are; tlu, TLU for any norm, a ReLU6 "
        "min(TLU, 6) (default: auto)",
    )
    command.add_argument(
        "--verify",
        action="store_true",
        help="run both models on random inputs and report the largest "
        "difference; an error where the function should have been kept",
    )
    command.add_argument(
        "--inputs",
        metavar="FILE.npy",
        help="verify on these inputs too: an array, or an .npz file of arrays "
        "by the names of the inputs",
    )
    command.add_argument(
        "--plan",
        action="store_true",
        help="say what would become of the model, and write nothing",
    )
    command.add_argument(
        "--keep-unreachable",
        action="store_true",
        help="keep batch normalization inside wrappers and composite layers, "
        "instead of ending with an error",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace OUT if it exists"
    )
    _define_common(command)


def _define_common(command):
    command.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    command.add_argument(
        "--weights",
        metavar="imagenet",
        choices=("imagenet",),
        help="trained weights for applications:NAME, downloaded; fresh random "
        "ones without",
    )
    command.add_argument(
        "--import",
        metavar="MODULE",
        dest="modules",
        action="append",
        default=[],
        help="import a Python module first, which registers custom layers; "
        "repeatable",
    )
    command.add_argument(
        "--unsafe",
        action="store_true",
        help="let Python code in the file run, as Lambda layers need, and "
        "take sizes out of all proportion; only for files that you trust",
    )


def _argument(text):
    """`KEY=VALUE` as a pair; a value that is JSON is read as JSON."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form KEY=VALUE, such as epsilon=1e-5"
        )
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


class _Missing(Exception):
    """What the program cannot do without is not installed."""


class _Terminated(BaseException):
    """A signal as an exception: what was begun is cleared away."""


def _start():
    """The module that does the work; imports Keras and its backend."""
    try:
        with _quiet_start():
            from keras_norm import cli
    except Exception as error:
        raise _Missing(_advice(error)) from error
    return cli


def _advice(error):
    """One line on what to install, or to set, so that Keras starts."""
    text = " ".join(str(error).split())[:200]
    missing = getattr(error, "name", None)
    wanted = os.environ.get("KERAS_BACKEND", "")
    installed = [name for name in BACKENDS if _is_installed(name)]
    if not installed:
        return (
            "Keras needs a backend, and none is installed: pip install "
            f"'keras_norm[tensorflow]', or jax or torch ({text})"
        )
    if missing in BACKENDS or "backend" in text:
        return (
            f"the backend {missing or wanted!r} is not installed: pip install "
            f"{missing if missing in BACKENDS else 'tensorflow'}, or set "
            f"KERAS_BACKEND={installed[0]}, which is ({text})"
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
    """Makes SIGTERM, and the end of the terminal, exceptions in this thread."""

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
def _quiet_start():
    """Keeps what TensorFlow prints when it starts off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
