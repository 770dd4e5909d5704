"""Fits the layers of a converted model to the original model, front to back.

Both models are evaluated in step, operation by operation. Each new norm gets
the gamma and beta with which it approximates the outputs of the batch
normalization that it replaces; then each convolution and dense layer behind it
is refitted to the original layer's outputs. A layer's inputs come from the
converted model, so that later layers correct the errors of earlier ones.
"""

import collections

import keras
import numpy as np

from keras_norm import variables
from keras_norm.calibration import pairs as pairs_lib
from keras_norm.calibration.linear_fit import refit_linear
from keras_norm.calibration.linear_layers import is_refittable
from keras_norm.calibration.norm_fit import NormFitter
from keras_norm.calibration.norm_fit import to_rows
from keras_norm.calibration.pairs import Pair
from keras_norm.calibration.walk import StagedWalk
from keras_norm.conversion import graph
from keras_norm.conversion import rebuild
from keras_norm.conversion import weights

REFITS = ("none", "affine", "next", "all")
# Standard deviations from the moving means at which examples are not like
# those of the training.
FAR = 1.0


class LayerFitting:
    """Calibrates the layers of a converted model, in walks over the graph.

    Args:
        model: The original model.
        plan: The conversion's `Plan`.
        operations: Dict from the id of an original operation to
            `(original, converted)`.
        refit: `"affine"`: fit the norms. `"next"`: also refit the linear layers
            between norms. `"all"`: and those behind the last norm.
        epsilon_ratio: Float, at least 0: FRN's epsilon relative to the mean
            square of a channel's input.
        strength: Float, the ridge penalty.
        seed: Seed of the choice of rows.

    Attributes:
        shifted: Description of the first batch normalization whose inputs are
            far from its moving moments, or None.
    """

    def __init__(
        self, model, plan, operations, refit, epsilon_ratio, strength, seed=0
    ):
        self.model = model
        self.plan = plan
        self.operations = operations
        self.refit = refit
        self.epsilon_ratio = epsilon_ratio
        self.strength = strength
        self.generator = np.random.default_rng(seed)
        self.num_calls, self.followed = _read_graph(model, plan)
        self.paths = {
            id(layer): entry.path
            for layer, entry in zip(
                plan.found, plan.report.entries, strict=True
            )
        }
        self.fitters = {}
        self.fitted = set()
        self.shifted = None

    def run(self, batches):
        """Calibrates the converted model.

        A norm with several calls is fitted to all of them together. What
        earlier calls had passed on is then out of date, so a second walk fits
        all other layers again.

        Args:
            batches: List with a list of batches for each input.

        Returns:
            List of `NormFit`.
        """
        self._walk(batches)
        self.fitted = {key for key in self.fitters if self.num_calls[key] > 1}
        if self.fitted:
            self.fitters = {key: self.fitters[key] for key in self.fitted}
            self._walk(batches)
        order = list(self.paths)
        fitters = sorted(self.fitters.items(), key=lambda i: order.index(i[0]))
        return [fitter.result() for _, fitter in fitters]

    def _walk(self, batches):
        inputs = [Pair(each, each) for each in batches]
        return StagedWalk(self._call).run(self.model, inputs)

    def _call(self, node, args, kwargs):
        old = graph.operation(node)
        found = pairs_lib.find_pairs((args, kwargs))
        num_batches = len(found[0].old) if found else 1
        outputs = _run_batches(old, args, kwargs, "old", num_batches)
        is_norm = id(old) in self.plan.layers
        is_threshold = id(node) in self.plan.thresholds
        if all(pair.is_equal for pair in found) and (
            self._is_equivalent(old) if is_norm else not is_threshold
        ):
            return [Pair(each, each) for each in outputs]
        if is_threshold:
            new = self.plan.thresholds[id(node)]
            args, kwargs = (found[0],), {}
        else:
            new = self.operations[id(old)][1]
        if is_norm:
            self._check_shift(old, outputs[0])
            args, kwargs = rebuild.accepted_arguments(new, old, args, kwargs)
            self._fit_norm(old, new, args, kwargs, outputs[0])
        elif self._is_refitted(old):
            refit_linear(old, new, found[0], self.strength, self.generator)
        results = _run_batches(new, args, kwargs, "new", num_batches)
        return [Pair(a, b) for a, b in zip(outputs, results, strict=True)]

    def _is_equivalent(self, old):
        return self.plan.transfers[id(old)].function != weights.CHANGED

    def _check_shift(self, batch_norm, outputs):
        """Notes the first layer that does not see what it saw in training."""
        if self.shifted is not None:
            return
        axis = batch_norm.axis % len(outputs[0].shape)
        mean = np.mean([to_rows(x, axis).mean(axis=0) for x in outputs], axis=0)
        values = {v.name: variables.read_copy(v) for v in batch_norm.variables}
        shift = np.abs(mean - values.get("beta", 0.0))
        scale = np.abs(values.get("gamma", np.ones_like(mean)))
        distance = np.sqrt(np.mean(shift**2) / max(np.mean(scale**2), 1e-30))
        if distance > FAR:
            self.shifted = (
                f"{self.paths[id(batch_norm)]}: the means of its inputs are "
                f"{distance:.1f} standard deviations from its moving means. Are "
                "the examples preprocessed as in training?"
            )

    def _is_refitted(self, old):
        if self.refit not in ("next", "all") or not is_refittable(old):
            return False
        # One kernel serves every call of a shared layer: it stays.
        return self.num_calls[id(old)] == 1 and (
            self.refit == "all" or id(old) in self.followed
        )

    def _fit_norm(self, old, new, args, kwargs, targets):
        key = id(old)
        if key in self.fitted:
            return
        if key not in self.fitters:
            self.fitters[key] = NormFitter(
                new, self.paths[key], self.epsilon_ratio
            )
        batches = [
            tuple(pairs_lib.select(each, "new", i) for each in (args, kwargs))
            for i in range(len(targets))
        ]
        axis = old.axis % len(targets[0].shape)
        self.fitters[key].add_call(batches, targets, axis)


def _run_batches(operation, args, kwargs, side, num_batches):
    """Returns a list of batches for each output of an operation."""
    outputs = [
        pairs_lib.run_operation(
            operation, *(pairs_lib.select(x, side, i) for x in (args, kwargs))
        )
        for i in range(num_batches)
    ]
    return [list(batches) for batches in zip(*outputs, strict=True)]


class _Ancestors(frozenset):
    """Ids of the linear layers whose outputs a tensor depends on."""


def _read_graph(model, plan):
    """Returns the number of calls by id, and the linear layers before norms.

    Returns:
        `(num_calls, followed)`: a counter by the ids of operations, and the set
        of the ids of linear layers that a replaced norm follows.
    """
    num_calls, followed = collections.Counter(), set()

    def call(node, args, kwargs):
        operation = graph.operation(node)
        num_calls[id(operation)] += 1
        ancestors = _Ancestors().union(
            *(
                x
                for x in keras.tree.flatten((args, kwargs))
                if isinstance(x, _Ancestors)
            )
        )
        if id(operation) in plan.layers:
            followed.update(ancestors)
        if is_refittable(operation):
            ancestors = ancestors | {id(operation)}
        return [_Ancestors(ancestors)] * len(graph.output_tensors(node))

    inputs = [_Ancestors() for _ in keras.tree.flatten(graph.inputs(model))]
    StagedWalk(call).run(model, inputs)
    return num_calls, followed
