"""The output of a layer and its gradients, on whichever backend runs."""

import keras
import numpy as np


def value_and_gradients(layer, x, upstream, **call):
    """Output, gradient in `x` and, by name, in every trainable weight.

    Args:
        layer: A built layer.
        x: Array.
        upstream: Array of the output's shape, the gradient that comes in.
        **call: Call arguments of the layer.
    """
    backend = keras.backend.backend()
    compute = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend]
    output, input_gradient, gradients = compute(layer, x, upstream, call)
    by_name = {
        weight.name: keras.ops.convert_to_numpy(gradient)
        for weight, gradient in zip(
            layer.trainable_variables, gradients, strict=True
        )
    }
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(output), to_numpy(input_gradient), by_name


def _tensorflow(layer, x, upstream, call):
    import tensorflow as tf

    x = tf.constant(x)
    weights = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, **call)
        loss = tf.reduce_sum(output * tf.cast(upstream, output.dtype))
    input_gradient, gradients = tape.gradient(loss, (x, weights))
    return output, input_gradient, gradients


def _jax(layer, x, upstream, call):
    import jax

    def run(x, weights):
        moving = [v.value for v in layer.non_trainable_variables]
        return layer.stateless_call(weights, moving, x, **call)[0]

    weights = [v.value for v in layer.trainable_variables]
    output, pull = jax.vjp(run, jax.numpy.asarray(x), weights)
    return output, *pull(jax.numpy.asarray(upstream, output.dtype))


def _torch(layer, x, upstream, call):
    import torch

    x = torch.tensor(x, requires_grad=True)
    layer.zero_grad()
    output = layer(x, **call)
    upstream = np.asarray(upstream)
    (output * torch.tensor(upstream, dtype=output.dtype)).sum().backward()
    gradients = [v.value.grad for v in layer.trainable_variables]
    return output.detach(), x.grad, gradients
