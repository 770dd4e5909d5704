"""Runs a model forward and backward on each backend."""

import os
import pathlib
import re
import tempfile

import keras


class TensorFlow:
    """TensorFlow, with XLA and with the plain graph."""

    modes = ("xla", "graph")

    def __init__(self):
        # XLA reports the memory that it plans only in its dump.
        self._dump = tempfile.TemporaryDirectory()
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_dump_to={self._dump.name}"
        self._count = 0

    def tensor(self, array):
        import tensorflow as tf

        return tf.constant(array)

    def wait(self, results):
        results[0][0, 0, 0, 0].numpy()

    def compile(self, model, mode, backward):
        """Returns `f(x, upstream)`, which returns tensors, and its label."""
        import tensorflow as tf

        weights = [v.value for v in model.trainable_variables]

        def run(x, upstream):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=True)
            if not backward:
                return [y]
            return [y, *tape.gradient(y, [x, *weights], upstream)]

        self._count += 1
        run.__name__ = f"contender{self._count}e"
        return tf.function(run, jit_compile=mode == "xla"), run.__name__

    def temporary_bytes(self, label):
        """Returns the peak memory besides arguments and results, or None."""
        files = pathlib.Path(self._dump.name).glob(
            f"*{label}*buffer-assignment.txt"
        )
        sizes = [
            int(size)
            for file in files
            for size in re.findall(
                r"^allocation \d+: size (\d+),[^\n]*preallocated-temp",
                file.read_text(),
                re.MULTILINE,
            )
        ]
        return sum(sizes) if sizes else None


class Jax:
    """JAX with `jax.jit`."""

    modes = ("xla",)

    def __init__(self):
        self._compiled = {}

    def tensor(self, array):
        import jax

        return jax.device_put(array)

    def wait(self, results):
        results[0].block_until_ready()

    def compile(self, model, mode, backward):
        import jax

        weights = [v.value for v in model.trainable_variables]
        moving = [v.value for v in model.non_trainable_variables]

        def forward(x, weights):
            return model.stateless_call(weights, moving, x, training=True)

        def run(x, upstream):
            if not backward:
                y, state = forward(x, weights)
                return [y, state]
            y, pull, state = jax.vjp(forward, x, weights, has_aux=True)
            return [y, pull(upstream), state]

        label = len(self._compiled)
        x = keras.ops.zeros(model.inputs[0].shape)
        self._compiled[label] = jax.jit(run).lower(x, x).compile()
        return self._compiled[label], label

    def temporary_bytes(self, label):
        return self._compiled[label].memory_analysis().temp_size_in_bytes


class Torch:
    """torch in eager mode."""

    modes = ("eager",)

    def tensor(self, array):
        return keras.ops.convert_to_tensor(array)

    def wait(self, results):
        import torch

        if results[0].is_cuda:
            torch.cuda.synchronize()

    def compile(self, model, mode, backward):
        import torch

        if isinstance(model, keras.Model):
            weights = [v.value for v in model.trainable_variables]

            def forward(x):
                return model(x, training=True)
        else:
            weights = list(model.parameters())
            forward = model

        def run(x, upstream):
            with torch.set_grad_enabled(backward):
                x = x.detach().requires_grad_(backward)
                y = forward(x)
            if not backward:
                return [y]
            return [y, *torch.autograd.grad(y, [x, *weights], upstream)]

        return run, None

    def temporary_bytes(self, label):
        return None


def get_engine(backend):
    return {"tensorflow": TensorFlow, "jax": Jax, "torch": Torch}[backend]()
