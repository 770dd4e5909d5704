"""Command line of the program keras-norm.

Its arguments are in `keras_norm/cli/arguments.py`, its commands in
`keras_norm.cli.commands`, which is imported only to run one: Keras takes
seconds to start, and --help should not. For the same reason this module is
outside the package: `import keras_norm` imports Keras to register layers.
"""

import contextlib
import importlib.util
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import threading

BACKENDS = ("tensorflow", "jax", "torch")

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
        commands = _import_commands()
        with _stoppable():
            return commands.main(options)
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
    version = _run_module("version")["__version__"]
    examples = _run_module("cli/examples")["EXAMPLES"]
    parse_arguments = _run_module("cli/arguments")["parse"]
    return parse_arguments(arguments, norm_names(), version, examples)


class _StartError(Exception):
    """Keras or its backend is not installed or does not start."""


class _Terminated(BaseException):
    """A signal as an exception, so that temporary files are removed."""


def _import_commands():
    """Imports the commands, and with them Keras and its backend."""
    try:
        with quiet_start():
            from keras_norm.cli import commands
    except Exception as error:
        raise _StartError(_advice(error)) from error
    return commands


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
    return runpy.run_path(str(pathlib.Path(package).parent / f"{name}.py"))


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
