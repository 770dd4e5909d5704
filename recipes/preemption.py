"""SIGTERM, as a machine sends it that is about to be taken away."""

import signal
import threading


class Preempted(Exception):
    """The run was asked to end, and has saved."""

    # What a shell reports of a process that SIGTERM ended.
    EXIT_CODE = 128 + signal.SIGTERM


class Preemption:
    """Inside, SIGTERM is noted and ends nothing.

    Attributes:
        requested: Whether it came.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self):
        # Python hears signals in its main thread alone.
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error):
        if self._handles:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number, frame):
        self.requested = True
