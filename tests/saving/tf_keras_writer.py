"""Writes files of Keras 2 and their outputs, in a process with tf-keras.

    python -m tests.saving.tf_keras_writer FOLDER NAME ...

For each name, or each name of a group, writes NAME.h5, NAME.keras, and NAME.npz
with the inputs x0, x1 ... and the outputs y0, y1 ... of tf-keras. Prints the
files that tf-keras cannot save.
Imports nothing of the package or of Keras 3.
"""

import pathlib
import sys
import warnings
import zlib

import numpy as np
import tensorflow as tf
import tf_keras

from tests.saving import tf_keras_layers
from tests.saving import tf_keras_models

SINGLE = tf_keras_layers.single_layers()


def build(name):
    """Returns the model of a name."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(3)
    if name in SINGLE:
        return tf_keras_layers.one_layer(*SINGLE[name])
    return tf_keras_models.build(name)


def draw_weights(model, name):
    """Sets every floating-point weight to a distinct value."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    # Its outputs do not follow a change of its weights.
    kept = {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, tf_keras.layers.Normalization)
        for weight in layer.weights
    }
    for weight in model.weights:
        if not weight.dtype.is_floating or id(weight) in kept:
            continue
        size = 1.0 / np.sqrt(max(1, np.prod(weight.shape[:-1])))
        value = generator.uniform(-1.6, 2.0, weight.shape) * size
        if "variance" in weight.name or "stddev" in weight.name:
            value = generator.uniform(0.5, 1.5, weight.shape)
        elif "gamma" in weight.name:
            value = generator.uniform(0.5, 1.5, weight.shape)
        weight.assign(tf.cast(value, weight.dtype))


def draw_inputs(model, name):
    generator = np.random.default_rng(zlib.crc32(f"{name}-x".encode()))
    inputs = []
    for tensor in model.inputs:
        shape = [size or 2 for size in tensor.shape]
        if tensor.dtype == tf.string:
            value = generator.choice(list("abcxyz"), shape).astype(object)
        elif tensor.dtype.is_integer:
            value = generator.integers(0, 9, shape)
            value = value.astype(tensor.dtype.as_numpy_dtype)
        else:
            high = tf_keras_models.RANGES.get(name, 2.0)
            value = generator.uniform(-high, high, shape)
            value = value.astype(tensor.dtype.as_numpy_dtype)
        inputs.append(value)
    return inputs


def write(folder, name):
    """Writes the files of a model; returns a list of problems."""
    try:
        model = build(name)
        draw_weights(model, name)
        inputs = draw_inputs(model, name)
        tensors = [tf.constant(value) for value in inputs]
        given = tensors if len(tensors) > 1 else tensors[0]
        outputs = model(given, training=False)
        outputs = tf.nest.flatten(outputs)
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {error}"]
    arrays = {f"x{i}": value.astype(str) if value.dtype == object else value
              for i, value in enumerate(inputs)}  # fmt: skip
    arrays |= {f"y{i}": y.numpy() for i, y in enumerate(outputs)}
    np.savez(folder / f"{name}.npz", **arrays)
    problems = []
    for suffix in ".h5", ".keras":
        path = folder / f"{name}{suffix}"
        try:
            model.save(path)
        except Exception as error:
            path.unlink(missing_ok=True)
            problems.append(f"{path.name}: {type(error).__name__}: {error}")
    return problems


def main(folder, *names):
    warnings.simplefilter("ignore")
    folder = pathlib.Path(folder)
    groups = {
        "layers": SINGLE,
        "graphs": tf_keras_models.GRAPHS,
        "operations": [f"op-{name}" for name in tf_keras_models.OPERATIONS],
    }
    names = [x for name in names for x in groups.get(name, [name])]
    for name in names:
        for problem in write(folder, name):
            print(problem.splitlines()[0][:200])


if __name__ == "__main__":
    main(*sys.argv[1:])
