"""TensorBoard profile of some training steps."""

import tensorflow as tf


class Profile:
    """Context manager that profiles the steps from the first to the last.

    TensorFlow has one profiler per process. It must be stopped however training
    ends, or the next run fails.

    Args:
        steps: First and last step; zeros for no profile.
        folder: Folder of the TensorBoard events.
    """

    def __init__(self, steps, folder):
        self.first, self.last = steps
        self.folder = folder
        self._is_running = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stop()

    def update(self, step):
        """Starts or stops the profiler after a step."""
        if step >= self.last:
            self._stop()
        elif step >= self.first - 1 and not self._is_running:
            tf.profiler.experimental.start(str(self.folder))
            self._is_running = True

    def _stop(self):
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()
