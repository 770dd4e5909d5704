"""Ctrl-C and SIGTERM, for a program that has others to end before itself."""

import signal


class Interrupts:
    """Inside, both are noted and interrupt nothing.

    So none can come between the start of a process and the note of it.

    Attributes:
        requested: Whether one of them came.
        num_keys: How often Ctrl-C did.
    """

    def __init__(self):
        self.requested = False
        self.num_keys = 0

    def __enter__(self):
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.requested = True
        self.num_keys += number == signal.SIGINT
