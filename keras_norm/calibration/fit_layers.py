"""Fits the layers of a converted model to the original model, front to back.

Both models are evaluated in step, operation by operation, on all batches. Each
new norm gets the gamma and beta with which it approximates the outputs of the
batch normalization that it replaces; then each convolution and dense layer
behind it is refitted to the original layer's outputs. A layer's inputs come
from the converted model, so that later layers correct the errors of earlier
ones.
"""

import dataclasses

import numpy as np

from keras_norm import variables
from keras_norm.calibration.annealing import AnnealedLayer
from keras_norm.calibration.linear_fit import refit_linear
from keras_norm.calibration.linear_layers import is_refittable
from keras_norm.calibration.norm_fit import NormFitter
from keras_norm.calibration.norm_fit import to_rows
from keras_norm.graphs import graph
from keras_norm.graphs.program import Program
from keras_norm.graphs.program import inference
from keras_norm.graphs.program import last_uses

REFITS = ("none", "affine", "next", "all")
# Standard deviations from the moving means at which examples are not like
# those of the training.
FAR = 1.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a calibration.

    Attributes:
        refit: `"affine"`: fit the norms. `"next"`: also refit the linear layers
            between norms. `"all"`: and those behind the last norm.
        epsilon_ratio: Float, at least 0: FRN's epsilon relative to the mean
            square of a channel's input.
        first_ratio: Float: the ratio to fit the layers with, if it is larger;
            it is lowered later.
        strength: Float, the ridge penalty.
    """

    refit: str
    epsilon_ratio: float
    first_ratio: float
    strength: float


class LayerFitting:
    """Fits the layers of a converted model.

    Args:
        model: The original model.
        plan: The conversion's `Plan`.
        operations: Dict from the id of an original operation to
            `(original, converted)`.

    Attributes:
        warnings: List of remarks: on the first batch normalization whose inputs
            are far from its moving moments, and on channels without values.
        annealed: List of `AnnealedLayer`: every FRN with a learned epsilon.
    """

    def __init__(self, model, plan, operations):
        self.program = Program(model)
        self.plan = plan
        self.operations = operations
        self.options = None
        self.warnings = []
        self.annealed = []
        self._num_calls, self._followed = _read_steps(self.program, plan)
        self._paths = {
            id(layer): entry.path
            for layer, entry in zip(
                plan.found, plan.report.entries, strict=True
            )
        }
        self._generator = np.random.default_rng(0)
        self._fitters = {}
        self._finished = set()

    def run(self, batches, options):
        """Fits the layers; returns a list of `NormFit`.

        A norm with several calls is fitted to all of them together. What
        earlier calls had passed on is then out of date, so a second pass fits
        all other layers again.

        Args:
            batches: List of batches, each a list of arrays.
            options: The `Options`.
        """
        if options.refit == "none":
            return []
        self.options = options
        self._run_steps(batches)
        shared = {key for key in self._fitters if self._num_calls[key] > 1}
        if shared:
            self._finished = shared
            self._fitters = {key: self._fitters[key] for key in shared}
            self._run_steps(batches)
        fitters = [self._fitters[x] for x in self._paths if x in self._fitters]
        self.annealed = [
            AnnealedLayer(x.layer, x.mean_square, x.epsilon_ratio)
            for x in fitters
            if x.mean_square is not None
        ]
        return [fitter.result() for fitter in fitters]

    def _run_steps(self, batches):
        values = [_Values(self.program, arrays) for arrays in batches]
        uses = last_uses(self.program.steps, set())
        for step in self.program.steps:
            self._run_step(step, values)
            for each in values:
                each.drop(uses.get(step, ()))

    def _run_step(self, step, values):
        old = step.operation
        for each in values:
            each.run_old(step)
        is_norm = id(old) in self.plan.layers
        is_threshold = id(step.node) in self.plan.calls
        if not values[0].differ(step.reads) and (
            self._is_equivalent(old) if is_norm else not is_threshold
        ):
            return
        if is_norm:
            self._fit_norm(step, values)
        elif self._is_refitted(old):
            refit_linear(
                old,
                self.operations[id(old)][1],
                [each.inputs(step) for each in values],
                self.options.strength,
                self._generator,
            )
        for each in values:
            each.run_new(step, self._converted(step))

    def _converted(self, step):
        """Returns `f(args, kwargs)`, the converted model's call of a step."""
        old = step.operation
        if old is None:
            return None
        if id(step.node) in self.plan.calls:
            threshold = self.plan.calls[id(step.node)]
            return lambda args, kwargs: threshold(
                args[0] if args else next(iter(kwargs.values()))
            )
        new = self.operations[id(old)][1]
        if id(old) not in self.plan.layers:
            return lambda args, kwargs: new(*args, **kwargs)

        def call(args, kwargs):
            args, kwargs = graph.accepted_arguments(new, old, args, kwargs)
            return new(*args, **kwargs)

        return call

    def _is_equivalent(self, old):
        return self.plan.transfers[id(old)].is_equivalent

    def _is_refitted(self, old):
        if self.options.refit not in ("next", "all") or not is_refittable(old):
            return False
        # One kernel serves every call of a shared layer: it stays.
        return self._num_calls[id(old)] == 1 and (
            self.options.refit == "all" or id(old) in self._followed
        )

    def _fit_norm(self, step, values):
        old, key = step.operation, id(step.operation)
        targets = [each.old[step.writes[0]] for each in values]
        axis = old.axis % len(targets[0].shape)
        self._check_shift(old, targets, axis)
        if key in self._finished:
            return
        new = self.operations[key][1]
        if key not in self._fitters:
            self._fitters[key] = NormFitter(new, self._paths[key], self.options)
        calls = [
            graph.accepted_arguments(new, old, *each.new_arguments(step))
            for each in values
        ]
        self._fitters[key].add_call(calls, targets, axis)

    def _check_shift(self, batch_norm, outputs, axis):
        """Notes the first layer that does not see what it saw in training."""
        if self.warnings:
            return
        mean = np.mean([to_rows(x, axis).mean(axis=0) for x in outputs], axis=0)
        values = {v.name: variables.read_copy(v) for v in batch_norm.variables}
        shift = np.abs(mean - values.get("beta", 0.0))
        scale = np.abs(values.get("gamma", np.ones_like(mean)))
        distance = np.sqrt(np.mean(shift**2) / max(np.mean(scale**2), 1e-30))
        if distance > FAR:
            self.warnings.append(
                f"{self._paths[id(batch_norm)]}: the means of its inputs are "
                f"{distance:.1f} standard deviations from its moving means. "
                "Are the examples preprocessed as in training?"
            )


class _Values:
    """The tensors of one batch in both models.

    Attributes:
        old: Dict from keys to the original model's tensors.
        new: Dict from keys to the converted model's tensors that differ.
    """

    def __init__(self, program, arrays):
        self.old = {
            **dict(zip(program.inputs, arrays, strict=True)),
            **program.constants,
        }
        self.new = {}

    def differ(self, keys):
        return any(key in self.new for key in keys)

    def run_old(self, step):
        with inference():
            step.run(self.old)

    def run_new(self, step, call):
        merged = {key: self._new_value(key) for key in step.reads}
        with inference():
            step.run(merged, call)
        self.new.update({key: merged[key] for key in step.writes})

    def new_arguments(self, step):
        return step.arguments({key: self._new_value(key) for key in step.reads})

    def inputs(self, step):
        """Returns the input of a layer in the original and the new model."""
        return tuple(
            step.inputs_and_mask(values)[0]
            for values in (
                self.old,
                {key: self._new_value(key) for key in step.reads},
            )
        )

    def drop(self, keys):
        for key in keys:
            self.old.pop(key, None)
            self.new.pop(key, None)

    def _new_value(self, key):
        return self.new[key] if key in self.new else self.old[key]


def _read_steps(program, plan):
    """Returns the number of calls by id, and the linear layers before norms.

    Returns:
        `(num_calls, followed)`: a dict from the ids of operations, and the set
        of the ids of linear layers that a replaced norm follows.
    """
    num_calls, followed, upstream = {}, set(), {}
    for step in program.steps:
        key = id(step.operation)
        num_calls[key] = num_calls.get(key, 0) + 1
        found = frozenset().union(
            *(upstream.get(read, ()) for read in step.reads)
        )
        if key in plan.layers:
            followed |= found
        if step.operation is not None and is_refittable(step.operation):
            found |= {key}
        upstream.update((write, found) for write in step.writes)
    return num_calls, followed
