"""Models with random statistics, and comparisons of folded models."""

import keras
import numpy as np

import keras_norm
from keras_norm import fold
from keras_norm.graphs import graph

# On JAX and PyTorch, Keras' batch normalization computes in float32.
TOLERANCE = 1e-11 if keras.backend.backend() == "tensorflow" else 1e-5


def randomize(model, seed=0, positive=False):
    """Draws every weight of a model at random.

    Args:
        model: Keras model.
        seed: Seed of the draw.
        positive: If True, no gamma is negative.
    """
    generator = np.random.default_rng(seed)
    for layer in [model, *model._flatten_layers(include_self=False)]:
        for variable in layer._trainable_variables + (
            layer._non_trainable_variables
        ):
            value = generator.normal(size=variable.shape)
            if variable.name == "moving_variance":
                value = generator.uniform(0.5, 2.0, variable.shape)
            elif variable.name == "gamma" and positive:
                value = generator.uniform(0.5, 1.5, variable.shape)
            elif variable.name in ("center_weight", "scale_weight"):
                value = np.zeros(variable.shape)
            elif variable.name in ("mean_mix", "variance_mix"):
                value = 0.0
            variable.assign(value)
    return model


def batch(model, size=2, seed=1):
    """Draws inputs of a model, with 7 for unknown sizes."""
    generator = np.random.default_rng(seed)

    def draw(tensor):
        shape = [7 if n is None else n for n in tensor.shape[1:]]
        if "int" in str(tensor.dtype):
            return generator.integers(0, 5, (size, *shape))
        return generator.normal(size=(size, *shape)).astype(tensor.dtype)

    return keras.tree.map_structure(draw, graph.inputs(model))


def outputs(model, inputs):
    """Returns a model's outputs at inference as a list of float64 arrays."""
    result = model(
        keras.tree.map_structure(keras.ops.convert_to_tensor, inputs),
        training=False,
    )
    return [
        keras.ops.convert_to_numpy(x).astype("float64")
        for x in keras.tree.flatten(result)
    ]


def relative_difference(one, other, inputs):
    """Returns the largest difference, divided by the largest output."""
    pairs = list(zip(outputs(one, inputs), outputs(other, inputs), strict=True))
    assert all(old.shape == new.shape for old, new in pairs)
    return max(
        float(np.abs(new - old).max() / np.abs(old).max()) for old, new in pairs
    )


def check_fold(model, directions, tolerance=TOLERANCE, **options):
    """Folds a model of float64 and compares it with the original.

    Args:
        model: Keras model with a float64 policy.
        directions: List of the directions of its norms in order, None for a
            norm that stays.
        tolerance: Largest relative difference.
        **options: Arguments of `fold`.

    Returns:
        `(folded, report)`.
    """
    before = [np.array(w) for w in model.get_weights()]
    folded, report = fold(model, **{"verify": False, **options})
    assert [entry.direction for entry in report.entries] == directions, report
    inputs = batch(model)
    difference = relative_difference(model, folded, inputs)
    assert difference <= max(tolerance, TOLERANCE)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    num_norms = sum(map(keras_norm.is_norm_layer, all_layers(folded)))
    assert num_norms == directions.count(None)
    return folded, report


def all_layers(model):
    """Returns all layers of a model at any depth."""
    return list(model._flatten_layers(include_self=False))


def chain(shape, *layers, dtype="float64", **options):
    """Returns a functional model of layers, one after the other, randomized."""
    x = y = keras.Input(shape, dtype=dtype)
    for layer in layers:
        y = layer(y)
    return randomize(keras.Model(x, y), **options)
