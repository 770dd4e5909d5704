"""Ctrl-C and SIGTERM: a run that is training saves a checkpoint and ends."""

import contextlib
import os
import signal
import sys
import threading

# Seconds that a run has to end by itself after a second Ctrl-C.
GRACE_SECONDS = 1.0

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Preempted(Exception):
    """The run was asked to end, and has saved a checkpoint.

    Attributes:
        step: The step of the checkpoint.
        number: The signal that asked.
    """

    def __init__(self, step, number):
        super().__init__(f"{_NAMES[number]}: saved after step {step}")
        self.step = step
        self.number = number


class Terminated(KeyboardInterrupt):
    """SIGTERM, where there is nothing to save."""


def exit_code(number):
    """What a shell reports of a process that the signal ended."""
    return 128 + number


class Preemption:
    """Inside, the first Ctrl-C or SIGTERM is noted and ends nothing.

    Attributes:
        number: The signal that came; None before one did.
    """

    def __init__(self):
        self.number = None

    def __enter__(self):
        self._before = {}
        # Python hears signals in its main thread alone.
        if threading.current_thread() is threading.main_thread():
            for number in _NAMES:
                # What a shell runs in the background ignores Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
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


@contextlib.contextmanager
def handled():
    """Inside, SIGTERM raises `Terminated`, and a second Ctrl-C ends at once.

    Python runs nothing, handlers of signals neither, before TensorFlow returns
    from what it computes or compiles. So a thread counts them.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken_before)
        os.close(writing)  # Ends the thread.
        signal.signal(signal.SIGTERM, before)


def _terminate(number, frame):
    raise Terminated


def _watch(reading):
    num_keys = 0
    while number := os.read(reading, 1):
        num_keys += number[0] == signal.SIGINT
        if num_keys == 2:
            timer = threading.Timer(GRACE_SECONDS, _end)
            timer.daemon = True
            timer.start()
    os.close(reading)


def _end():
    if sys.__stdout__.isatty():
        # The progress bar has hidden the cursor.
        os.write(sys.__stdout__.fileno(), b"\x1b[?25h\n")
    os._exit(exit_code(signal.SIGINT))
