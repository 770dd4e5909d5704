"""Measures the optimizations of `keras_norm/_xla_cpu.py` for XLA on a CPU.

Sums over planes by `plane_sums` against the same by `ops.sum`, and RBN with and
without `stored`; medians of interleaved runs.

  python benchmarks/plane_sums.py
"""

import os
import pathlib
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import ops  # noqa: E402

import keras_norm  # noqa: E402
from keras_norm import fused_ops  # noqa: E402
from keras_norm._xla_cpu import materialize  # noqa: E402
from keras_norm._xla_cpu import plane_sums  # noqa: E402

NUM_ROUNDS = 15
LARGE = (32, 56, 56, 256)
MANY_CHANNELS = (32, 14, 14, 1024)
AXES = (1, 2)


def one_sum(x, y):
    return [x * x]


def two_sums(x, y):
    return [y, x * y]


def plain_sums(terms, tensors, axes):
    return [ops.sum(value, axis=axes) for value in terms(*tensors)]


def calibrated(store):
    """Forward and backward of RBN, with or without stored planes."""
    layer = keras_norm.RBN()
    layer.build(MANY_CHANNELS)

    def run(x, y):
        fused_ops.materialize = store
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, training=True)
        weights = [v.value for v in layer.trainable_variables]
        return tape.gradient(output, [x, *weights], y)

    return run


def contenders():
    """Returns a dict from a description to a function and its input shape."""
    return {
        "a copy": (lambda x, y: [x + 1.0], LARGE),
        "the sum of squares, plain": (
            lambda x, y: plain_sums(one_sum, [x, y], AXES),
            LARGE,
        ),
        "the sum of squares, plane_sums": (
            lambda x, y: plane_sums(one_sum, [x, y], AXES),
            LARGE,
        ),
        "two sums, plain": (
            lambda x, y: plain_sums(two_sums, [x, y], AXES),
            LARGE,
        ),
        "two sums, plane_sums": (
            lambda x, y: plane_sums(two_sums, [x, y], AXES),
            LARGE,
        ),
        "RBN, forward + backward, not stored": (
            calibrated(lambda planes: planes),
            MANY_CHANNELS,
        ),
        "RBN, forward + backward, stored": (
            calibrated(materialize),
            MANY_CHANNELS,
        ),
    }


def main():
    generator = np.random.default_rng(0)
    runs, seconds = {}, {}
    for name, (function, shape) in contenders().items():
        tensors = [
            tf.constant(generator.normal(size=shape).astype("float32"))
            for _ in range(2)
        ]
        compiled = tf.function(function, jit_compile=True, autograph=False)
        compiled(*tensors)
        runs[name], seconds[name] = (compiled, tensors, shape), []
    for _ in range(NUM_ROUNDS):
        for name, (compiled, tensors, _) in runs.items():
            start = time.perf_counter()
            compiled(*tensors)[0][0].numpy()
            seconds[name].append(time.perf_counter() - start)
    for name, (_, _, shape) in runs.items():
        print(f"{1e3 * np.median(seconds[name]):7.1f} ms  {name} at {shape}")


if __name__ == "__main__":
    main()
