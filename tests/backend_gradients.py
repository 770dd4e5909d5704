"""The output of a layer and its gradients, on whichever backend runs."""

import keras
import numpy as np

BACKEND = keras.backend.backend()
# How a backend can run a layer: one operation at a time, as a graph, compiled.
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "xla"),
    "torch": ("eager",),
}[BACKEND]


# JAX compiles every operation of an eager run by itself: one run is faster.
FAST_MODE = "xla" if BACKEND == "jax" else "eager"


def value_and_gradients(layer, x, upstream, mode=FAST_MODE, **call):
    """Output, gradient in `x` and, by name, in every trainable weight.

    Args:
        layer: A built layer.
        x: Array.
        upstream: Array of the output's shape, the gradient that comes in.
        mode: One of `MODES`.
        **call: Call arguments of the layer.
    """
    run = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[BACKEND]
    output, input_gradient, gradients = run(layer, x, upstream, mode, call)
    to_numpy = keras.ops.convert_to_numpy
    by_name = {
        weight.name: to_numpy(gradient)
        for weight, gradient in zip(
            layer.trainable_variables, gradients, strict=True
        )
    }
    return to_numpy(output), to_numpy(input_gradient), by_name


def _tensorflow(layer, x, upstream, mode, call):
    import tensorflow as tf

    weights = [v.value for v in layer.trainable_variables]

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, **call)
            loss = tf.reduce_sum(output * tf.cast(upstream, output.dtype))
        return output, *tape.gradient(loss, (x, weights))

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    return run(tf.constant(x))


def _jax(layer, x, upstream, mode, call):
    import jax

    moving = [v.value for v in layer.non_trainable_variables]

    def forward(x, weights):
        return layer.stateless_call(weights, moving, x, **call)[0]

    def run(x, weights):
        output, pull = jax.vjp(forward, x, weights)
        return output, *pull(jax.numpy.asarray(upstream, output.dtype))

    weights = [v.value for v in layer.trainable_variables]
    if mode == "xla":
        run = jax.jit(run)
    return run(jax.numpy.asarray(x), weights)


def _torch(layer, x, upstream, mode, call):
    import torch

    x = torch.tensor(x, requires_grad=True)
    layer.zero_grad()
    output = layer(x, **call)
    upstream = np.asarray(upstream)
    (output * torch.tensor(upstream, dtype=output.dtype)).sum().backward()
    gradients = [v.value.grad for v in layer.trainable_variables]
    return output.detach(), x.grad, gradients


def gradient_of_gradient(layer, x, upstream, direction, mode="eager", **call):
    """The gradient in `x` of `sum(direction * gradient in x)`.

    Arguments: `value_and_gradients`; `direction` has the shape of `x`.
    """
    run = {"tensorflow": _tensorflow2, "jax": _jax2, "torch": _torch2}[BACKEND]
    result = run(layer, x, upstream, direction, mode, call)
    return keras.ops.convert_to_numpy(result)


def _tensorflow2(layer, x, upstream, direction, mode, call):
    import tensorflow as tf

    def run(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, **call) * upstream)
            penalty = tf.reduce_sum(inner.gradient(loss, x) * direction)
        return outer.gradient(
            penalty, x, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    return run(tf.constant(x))


def _jax2(layer, x, upstream, direction, mode, call):
    import jax

    moving = [v.value for v in layer.non_trainable_variables]
    weights = [v.value for v in layer.trainable_variables]

    def loss(x):
        output = layer.stateless_call(weights, moving, x, **call)[0]
        return (output * upstream).sum()

    def penalty(x):
        return (jax.grad(loss)(x) * direction).sum()

    run = jax.grad(penalty)
    return (jax.jit(run) if mode == "xla" else run)(jax.numpy.asarray(x))


def _torch2(layer, x, upstream, direction, mode, call):
    import torch

    x = torch.tensor(x, requires_grad=True)
    loss = (layer(x, **call) * torch.tensor(upstream)).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    penalty = (gradient * torch.tensor(direction)).sum()
    if not penalty.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(penalty, x, allow_unused=True)
    return torch.zeros_like(x) if result is None else result
