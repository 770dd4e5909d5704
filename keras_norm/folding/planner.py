"""Plans a folding: decides which norms fold, and into which weights."""

import keras
import numpy as np

from keras_norm.folding import linear_layers
from keras_norm.folding import passages
from keras_norm.folding.affine import NotFoldableError
from keras_norm.folding.affine import norm_vectors
from keras_norm.folding.links import Links
from keras_norm.folding.time_distributed import inner_layer
from keras_norm.folding.walks import BackwardWalk
from keras_norm.folding.walks import ForwardWalk
from keras_norm.folding.walks import norm_affine
from keras_norm.folding.walks import same_for_all
from keras_norm.graphs import graph


class Planner:
    """Folds the norms of a model one after the other.

    Attributes:
        links: `Links` of the model, without the norms that are folded.
        linear: Dict from the ids of layers to the `LinearLayer`s that replace
            them.
        norms: Dict from the ids of norms that take factors of other norms to
            `(layer, gamma and beta)`.
        paddings: Dict from the `Call`s of layers that pad with zeros to the
            constants that they pad with instead, one per channel.
        removed: List of the `Call`s of folded norms.
    """

    def __init__(self, model):
        self.links = Links(model)
        self.linear, self.norms, self.paddings = {}, {}, {}
        self.removed = []
        self._arguments = {
            id(value)
            for call in self.links.calls
            for value in keras.tree.flatten(graph.arguments(call.node))
            if isinstance(value, keras.Variable)
        }

    def run(self, layers):
        """Folds as many norms as possible.

        Args:
            layers: Norms in the order of computation.

        Returns:
            Dict from the ids of norms to `(direction, paths)` with the paths of
            the layers that they are folded into, or `(None, reason)`.
        """
        results, reasons = {}, {id(layer): [] for layer in layers}
        stages = (
            (layers, BackwardWalk, {}),
            (layers[::-1], ForwardWalk, {}),
            (layers, BackwardWalk, {"into_norms": True}),
        )
        for ordered, kind, options in stages:
            for layer in ordered:
                if id(layer) in results:
                    continue
                walk = kind(self.links, **options)
                try:
                    paths = self._fold(layer, walk)
                except NotFoldableError as error:
                    if not options and str(error) not in reasons[id(layer)]:
                        reasons[id(layer)].append(str(error))
                else:
                    results[id(layer)] = walk.direction, paths
        for layer in layers:
            reason = "; ".join(reasons[id(layer)])
            results.setdefault(id(layer), (None, reason))
        return results

    def _fold(self, layer, walk):
        """Folds one norm; returns the paths of the layers that take it."""
        calls = self.links.calls_of(layer)
        norm = inner_layer(layer)
        for call in calls:
            if norm.trainable and self.links.is_training(call):
                raise NotFoldableError("it is called with training=True")
        _, values = self.norms.get(id(layer), (layer, None))
        vectors = norm_vectors(norm, values)
        for call in calls:
            walk.run(call, norm_affine(call, *vectors))
        linear, norms = {}, {}
        targets = {id(call.operation): call.operation for call in walk.targets}
        for key, target in targets.items():
            target_calls, affine = same_for_all(walk, target, self.links)
            if linear_layers.is_linear_layer(target):
                linear[key] = self._fold_linear(
                    target, target_calls, affine, walk.direction
                )
            else:
                norms[key] = self._fold_norm(target, target_calls[0], affine)
        paddings = {
            call: self._pad(call, affine, walk.direction)
            for call, affine in walk.paddings.items()
        }
        self.linear.update(linear)
        self.norms.update(norms)
        self.paddings.update(paddings)
        self.removed += calls
        for call in calls:
            self.links.bypass(call)
        return tuple(dict.fromkeys(call.path for call in walk.targets))

    def _fold_linear(self, layer, calls, affine, direction):
        linear = self.linear.get(id(layer)) or linear_layers.read(layer)
        if any(id(v) in self._arguments for v in layer.variables):
            raise NotFoldableError(
                f"a weight of {calls[0].describe()} is also used elsewhere"
            )
        if direction == BackwardWalk.direction:
            folded = linear_layers.fold_outputs(linear, affine, calls[0])
        else:
            # Only some of the calls may pad.
            folded = max(
                (linear_layers.fold_inputs(linear, affine, c) for c in calls),
                key=lambda each: each.padding is not None,
            )
        linear_layers.check_range(folded)
        return folded

    def _fold_norm(self, layer, call, affine):
        """Returns `(layer, gamma and beta)` of a norm before another."""
        if any(call in self.removed for call in self.links.calls_of(layer)):
            raise NotFoldableError(f"{call.describe()} is folded itself")
        values = dict(self.norms.get(id(layer), (layer, {}))[1])
        current = {
            v.name: keras.ops.convert_to_numpy(v).astype("float64")
            for v in layer.variables
        }
        size = current["moving_mean"].shape
        gamma = values.get("gamma", current.get("gamma", np.ones(size)))
        beta = values.get("beta", current.get("beta", np.zeros(size)))
        probe = norm_affine(call, np.arange(1.0, size[0] + 1), np.zeros(size))
        (axis,) = probe.axes or {0}
        factor, offset = affine.along(axis, size[0])
        return layer, {
            "gamma": gamma * factor,
            "beta": beta * factor + offset,
        }

    def _pad(self, call, affine, direction):
        """Returns the constants of a layer that pads with zeros."""
        axes = passages.spatial_axes(call.operation, len(call.output_shape))
        (axis,) = set(range(len(call.output_shape))) - axes
        size = call.output_shape[axis]
        factor, offset = affine.along(axis, size)
        before = self.paddings.get(call, np.zeros(size))
        if direction == BackwardWalk.direction:
            return before * factor + offset
        moved = before - offset
        if not factor[moved != 0].all():
            raise NotFoldableError(
                f"{call.describe()} pads with zeros, and a channel with a "
                "factor of 0 has no value that becomes 0"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(moved == 0, 0.0, moved / factor)
