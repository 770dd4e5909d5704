"""Handling of Ctrl-C and SIGTERM: save a checkpoint, then exit."""

import contextlib
import os
import signal
import sys
import threading

from recipes.run_dir import run_dir
from recipes.training import multi_worker

# Seconds that a run has to exit by itself after a second Ctrl-C.
GRACE_SECONDS = 1.0

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Preempted(Exception):
    """Training was interrupted and has saved a checkpoint.

    Attributes:
        step: Step of the checkpoint.
        number: Number of the signal; None if another worker received it.
    """

    def __init__(self, step, number):
        name = _NAMES.get(number, "another worker was interrupted")
        super().__init__(f"{name}: saved after step {step}")
        self.step = step
        self.number = number


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived when there was nothing to save."""


class Preemption:
    """Context manager that records the first Ctrl-C or SIGTERM.

    The training loop checks `number` after each execution. A second Ctrl-C
    raises `KeyboardInterrupt`.

    Attributes:
        number: Number of the signal, or None.
    """

    def __init__(self):
        self.number = None

    def __enter__(self):
        self._handlers = {}
        # Python handles signals in its main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in _NAMES:
                # Background jobs of a shell ignore Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *error):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _record(self, number, frame):
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None:
            print(
                f"\n{_NAMES[number]}: the run ends after a checkpoint of this "
                "step; Ctrl-C again ends it at once",
                flush=True,
            )
        if self.number is None or number == signal.SIGINT:
            self.number = number


class DeferredInterrupts:
    """Context manager that records Ctrl-C and SIGTERM without raising.

    A program with child processes can then start a process and note its id
    without being interrupted in between.

    Attributes:
        number: Number of the first signal; None before one has arrived.
        num_keys: How often Ctrl-C was pressed.
    """

    def __init__(self):
        self.number = None
        self.num_keys = 0

    @property
    def requested(self):
        """True once one of the signals has arrived."""
        return self.number is not None

    def __enter__(self):
        self._handlers = {
            number: signal.signal(number, self._record)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _record(self, number, frame):
        self.number = self.number or number
        self.num_keys += number == signal.SIGINT


@contextlib.contextmanager
def exit_on_interrupt(config):
    """Exits with a message when a run is interrupted.

    The exit status is the one that shells report for the signal.

    Args:
        config: The config of the run.
    """
    try:
        with _raise_on_signals():
            yield
    except Preempted as stop:
        print(f"{stop}; {describe_resumption(config)}")
        sys.exit(_exit_status(stop.number or signal.SIGTERM))
    except KeyboardInterrupt as stop:
        print(f"\nstopped; {describe_resumption(config)}")
        is_sigterm = isinstance(stop, Terminated)
        sys.exit(_exit_status(signal.SIGTERM if is_sigterm else signal.SIGINT))


def describe_resumption(config):
    """Returns a clause: what the same command does after a run has stopped.

    Args:
        config: The config of the run.
    """
    if not multi_worker.is_chief(config.strategy):
        return (
            "the same commands on all workers resume from the checkpoint of "
            "the chief"
        )
    return run_dir.describe_resumption(config.folder, config.trains)


@contextlib.contextmanager
def exit_at_once(handler=signal.SIG_DFL):
    """Lets Ctrl-C and SIGTERM end the process without running any Python code.

    Some functions of TensorFlow hold Python's lock while they wait, so that
    neither signal handlers nor threads run.

    Args:
        handler: Signal handler that ends the process, if Python code can run.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in _NAMES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)


def exit_during_import(config):
    """Lets Ctrl-C and SIGTERM end the process while libraries are imported.

    An exception inside the import of a library in C++ can crash the process.

    Args:
        config: The config of the run.
    """

    def end(number, frame):
        print(f"\nstopped; {describe_resumption(config)}", flush=True)
        os._exit(_exit_status(number))

    return exit_at_once(end)


def _exit_status(number):
    return 128 + number


@contextlib.contextmanager
def _raise_on_signals():
    """Raises `Terminated` on SIGTERM; the second Ctrl-C ends the process.

    Python runs no signal handler before TensorFlow returns from computing or
    compiling, so a thread counts the signals.
    """
    handler = signal.signal(signal.SIGTERM, _raise_terminated)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_count_keys, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_fd)
        os.close(writing)  # Ends the thread.
        signal.signal(signal.SIGTERM, handler)


def _raise_terminated(number, frame):
    raise Terminated


def _count_keys(reading):
    num_keys = 0
    while number := os.read(reading, 1):
        num_keys += number[0] == signal.SIGINT
        if num_keys == 2:
            timer = threading.Timer(GRACE_SECONDS, _end_process)
            timer.daemon = True
            timer.start()
    os.close(reading)


def _end_process():
    if sys.__stdout__.isatty():
        # The progress bar has hidden the cursor.
        os.write(sys.__stdout__.fileno(), b"\x1b[?25h\n")
    os._exit(_exit_status(signal.SIGINT))
