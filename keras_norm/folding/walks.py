"""Walks from a batch normalization to the layers that take its factors."""

import numpy as np

from keras_norm.folding import linear_layers
from keras_norm.folding import passages
from keras_norm.folding.affine import NotFoldableError
from keras_norm.folding.affine import along_axis
from keras_norm.folding.affine import folds_when_constant
from keras_norm.folding.time_distributed import InnerCall
from keras_norm.folding.time_distributed import is_time_distributed

BACKWARD = "backward"
FORWARD = "forward"


class Walk:
    """Targets of the affine function that replaces a batch normalization.

    Attributes:
        targets: Dict from `Call` to `Affine`: of the output of a linear layer
            or norm in a backward walk, of its input in a forward walk.
        paddings: Dict from `Call` to `Affine`, for layers that pad with zeros.
    """

    def __init__(self, links):
        self.links = links
        self.targets = {}
        self.paddings = {}

    def _add(self, found, call, affine):
        before = found.get(call)
        found[call] = affine if before is None else affine.after(before)


class BackwardWalk(Walk):
    """Finds the layers before a batch normalization.

    Args:
        links: `Links` of the model.
        into_norms: If True, the targets are batch normalizations.
    """

    direction = BACKWARD

    def __init__(self, links, into_norms=False):
        super().__init__(links)
        self.into_norms = into_norms

    def run(self, call, affine):
        """Adds the targets of one call of a batch normalization."""
        links = self.links
        stack = [(links.inputs(call)[0], call, affine)]
        while stack:
            value, consumer, affine = stack.pop()
            self._require_single_use(value, consumer)
            call = links.producer(value)
            if call is None:
                raise NotFoldableError("follows an input of the model")
            if self._is_target(call.operation):
                self._add(self.targets, call, affine)
                continue
            if type(call.operation) in passages.ZERO_PADDING:
                self._add(self.paddings, call, affine)
                parts = [affine]
            else:
                training = links.is_training(call)
                parts = passages.to_inputs(call, affine, training)
            if parts is None:
                raise NotFoldableError(f"follows {call.describe()}")
            values = links.inputs(call)
            stack += [
                (value, call, part)
                for value, part in zip(values, parts, strict=False)
            ]

    def _is_target(self, operation):
        if self.into_norms:
            return folds_when_constant(operation)
        return linear_layers.is_linear_layer(operation)

    def _require_single_use(self, value, consumer):
        links = self.links
        if links.is_output(value):
            raise NotFoldableError(
                "a layer before it is also an output of its model"
            )
        uses = links.inputs(consumer).count(value)
        others = [c for c in links.consumers(value) if c is not consumer]
        if others or uses > 1:
            other = (others or [consumer])[0]
            raise NotFoldableError(
                f"a layer before it also feeds {other.describe()}"
            )


class ForwardWalk(Walk):
    """Finds the layers behind a batch normalization."""

    direction = FORWARD

    def run(self, call, affine):
        """Adds the targets of one call of a batch normalization."""
        links = self.links
        stack = [(links.outputs(call)[0], affine)]
        while stack:
            value, affine = stack.pop()
            if links.is_output(value):
                raise NotFoldableError("its output is an output of its model")
            for call in links.consumers(value):
                for index, each in enumerate(links.inputs(call)):
                    if each != value:
                        continue
                    result = self._pass(call, index, affine)
                    if result is not None:
                        stack.append((links.outputs(call)[0], result))

    def _pass(self, call, index, affine):
        """Returns the affine function behind a call; None for a target."""
        if linear_layers.is_linear_layer(call.operation) and index == 0:
            self._add(self.targets, call, affine)
            return None
        if type(call.operation) in passages.ZERO_PADDING:
            self._add(self.paddings, call, affine)
            return affine
        training = self.links.is_training(call)
        result = passages.to_output(call, index, affine, training)
        if result is None:
            raise NotFoldableError(f"feeds {call.describe()}")
        return result


def norm_affine(call, factor, offset):
    """Returns the `Affine` of a batch normalization's call.

    Args:
        call: The `Call`.
        factor: Array, one value per channel.
        offset: As `factor`.
    """
    if is_time_distributed(call.operation):
        return norm_affine(InnerCall(call), factor, offset).outside()
    axis = call.operation.axis
    if not isinstance(axis, int):
        # Legacy files have a list of one axis.
        (axis,) = axis
    rank = len(call.output_shape)
    axis = axis - 1 if axis > 0 else axis + rank
    return along_axis(factor, offset, axis, rank)


def same_for_all(walk, layer, links):
    """Returns a layer's call and affine function if all calls share it.

    Raises:
        NotFoldableError: if the layer is also called elsewhere, or with
            another affine function.
    """
    calls = links.calls_of(layer)
    others = [call for call in calls if call not in walk.targets]
    if others:
        raise NotFoldableError(
            f"{others[0].describe()} is called {len(calls)} times, not always "
            "next to it"
        )
    first, *rest = (walk.targets[call] for call in calls)
    for other in rest:
        if not (
            np.array_equal(first.factor, other.factor)
            and np.array_equal(first.offset, other.offset)
        ):
            raise NotFoldableError(
                f"the calls of {calls[0].describe()} need different weights"
            )
    return calls, first
