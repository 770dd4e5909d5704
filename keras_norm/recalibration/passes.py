"""Passes over the data that compute the moments of layers."""

from keras_norm.errors import ConversionError
from keras_norm.graphs.program import inference
from keras_norm.graphs.program import last_uses
from keras_norm.progress import show_progress
from keras_norm.recalibration.activation_cache import ActivationCache
from keras_norm.recalibration.activation_cache import DataSource
from keras_norm.recalibration.layer_moments import LayerMoments


class Passes:
    """Runs the steps of a program over all batches.

    A pass computes the inputs of the layers of one stage. It starts from the
    activations that an earlier pass kept, so that a chain of layers costs
    little more than one pass over the whole network. If they are too large to
    be kept, it starts from the last ones that were not, or from the data.

    Args:
        program: The `Program`.
        batches: The `Batches` of the data.
        upstream: Dict from keys to the layers that they depend on.
        paths: Dict from the ids of layers to their paths.
        name: Name of the model, for the progress bar; None for none.

    Attributes:
        num_passes: Number of passes so far.
        num_examples: Number of examples in a pass, None before the first one.
    """

    def __init__(self, program, batches, upstream, paths, name=None):
        self.program = program
        self.upstream = upstream
        self.paths = paths
        self.name = name
        self.num_passes = 0
        self.num_examples = None
        self._batches = batches
        self._data = DataSource(program.inputs, batches)
        self._source = self._data

    def run_stage(self, stage, finished, later):
        """Computes the moments of the layers of a stage in one pass.

        Args:
            stage: The `Stage`.
            finished: Set of the ids of the layers of earlier stages.
            later: List of the steps of this stage's and of later layers.

        Returns:
            Dict from the ids of layers to `LayerMoments`.
        """
        calls = [call for steps in stage.calls.values() for call in steps]
        moments = {
            name: LayerMoments(steps[0].operation)
            for name, steps in stage.calls.items()
        }
        wanted = {key for call in calls for key in call.reads}
        steps = self.program.steps_between(self._available(), wanted)
        keep = self._keys_to_keep(steps, finished, later)
        unused = last_uses(steps, wanted | keep)

        def run(values):
            for step in steps:
                step.run(values)
                for key in unused.get(step, ()):
                    del values[key]
            for call in calls:
                self._observe(call, values, moments[id(call.operation)])

        # The same activations are not kept twice.
        is_new = keep != self._source.keys
        self._run(run, ActivationCache(keep if is_new else ()))
        return moments

    def run_batch_mode(self, layers):
        """Computes the moments of training-mode batches in one pass.

        Every layer normalizes each batch by the moments of that batch.

        Args:
            layers: List of the layers.

        Returns:
            Dict from the ids of layers to `LayerMoments`.
        """
        moments = {id(layer): LayerMoments(layer) for layer in layers}
        calls = [s for s in self.program.steps if id(s.operation) in moments]
        wanted = {key for call in calls for key in call.writes}
        steps = self.program.steps_between(self._available(), wanted)
        unused = last_uses(steps, set())

        def run(values):
            for step in steps:
                if id(step.operation) in moments:
                    found = LayerMoments(step.operation)
                    self._observe(step, values, found)
                    moments[id(step.operation)].merge(found)
                    # Undone at the end of the batch.
                    found.assign_for_batch()
                step.run(values)
                for key in unused.get(step, ()):
                    del values[key]

        self._run(run, ActivationCache(()))
        return moments

    def _available(self):
        return self._source.keys | set(self.program.constants)

    def _keys_to_keep(self, steps, finished, later):
        """Returns the keys of a pass that later passes start from."""
        known = self._available().union(*(step.writes for step in steps))
        # Values that do not change any more.
        known = {key for key in known if self.upstream[key] <= finished}
        wanted = {key for call in later for key in call.reads}
        missing = self.program.steps_between(known, wanted)
        wanted = wanted.union(*(step.reads for step in missing))
        return (wanted & known) - set(self.program.constants)

    def _run(self, run, cache):
        """Runs a function on every batch; keeps activations in a cache."""
        self.num_passes += 1
        total, num_examples = self.num_examples, 0
        if total is None:
            total = self._batches.num_examples
        text = f"recalibrating {self.name}, pass {self.num_passes}"
        with show_progress(
            text if self.name is not None else None, None
        ) as advance:
            for number, (size, values) in enumerate(self._source):
                values.update(self.program.constants)
                num_examples += size
                with inference():
                    run(values)
                if cache.add(size, values, total):
                    self._source.release(number)
                advance(self._batches.num_batches)
        self.num_examples = num_examples
        if cache.is_complete:
            self._source = cache
        elif not self._source.is_complete:
            self._source = self._data

    def _observe(self, call, values, moments):
        layer = call.operation
        if moments.add(*call.inputs_and_mask(values)):
            return
        raise ConversionError(
            f"The input of {self.paths[id(layer)]!r} is not finite at "
            "inference. Check the weights of the layers before it and the "
            f"scale of the data. Received: layer={type(layer).__name__}"
        )
