"""The TensorBoard profile of some steps, ended however training ends."""

import tensorflow as tf


class Profile:
    """Inside, profiles the steps from the first to the last.

    TensorFlow has one profiler a process: what leaves it running makes the next
    run fail.

    Args:
        steps: First and last step; zeros for none.
        folder: Path of the TensorBoard events.
    """

    def __init__(self, steps, folder):
        self.first, self.last = steps
        self.folder = folder
        self._is_running = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stop()

    def move(self, step):
        """Starts or stops after that step."""
        if step >= self.last:
            self._stop()
        elif step >= self.first - 1 and not self._is_running:
            tf.profiler.experimental.start(str(self.folder))
            self._is_running = True

    def _stop(self):
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()
