"""Training with `fit` on two workers, as two local processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.recipes.command_line import ROOT
from tests.recipes.command_line import cluster
from tests.recipes.training.test_multi_worker import free_ports

PROGRAM = """
import json, os, sys
import keras, numpy as np, tensorflow as tf
import keras_norm
from keras_norm.training import ReplicaModel

if "TF_CONFIG" in os.environ:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
# The last batch leaves one worker less than the other.
x = random.normal(size=(27, 6, 6, 3)).astype("float32")
y = random.integers(0, 5, 27)
norm = keras_norm.get("sync_bn")
with strategy.scope():
    inputs = keras.Input((6, 6, 3))
    z = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    z = norm.activation()(norm.layer()(z))
    z = keras.layers.GlobalAveragePooling2D()(z)
    network = keras.Model(inputs, keras.layers.Dense(5)(z))
    model = ReplicaModel(network, clip_global_norm=0.5)
    model.compile(
        keras.optimizers.SGD(0.3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.DATA
)
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
data = data.with_options(options)
history = model.fit(data, epochs=2, verbose=0, shuffle=False).history
loss, accuracy = model.evaluate(data, verbose=0)
weights = [w.numpy().tolist() for w in network.weights]
print(json.dumps([history, loss, accuracy, weights]))
"""


def start(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def results(processes):
    for process in processes:
        output, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
        yield json.loads(output.splitlines()[-1])


@pytest.mark.long
def test_fit_on_two_workers_equals_one_device():
    ports = free_ports(2)
    both = [start(TF_CONFIG=cluster(ports, index)) for index in range(2)]
    first, second = results(both)
    (expected,) = results([start()])
    for ours in (first, second):
        for key, values in expected[0].items():
            np.testing.assert_allclose(ours[0][key], values, atol=1e-5)
        np.testing.assert_allclose(ours[1:3], expected[1:3], atol=1e-5)
        for a, b in zip(ours[3], expected[3], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
