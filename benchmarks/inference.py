"""Measures inference with each norm, and before and after folding.

Networks are built with batch normalization whose weights are random, folded
with `keras_norm.fold`, and converted with `keras_norm.convert`. All contenders
run in turn: their LiteRT file on one image with one thread, and `predict` on
one batch. The results are medians over the rounds.

  python benchmarks/inference.py
  python benchmarks/inference.py --json=docs/measured/inference.json
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import numpy as np  # noqa: E402
from rich.progress import track  # noqa: E402

import keras_norm  # noqa: E402
from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes.models import classifiers  # noqa: E402

# Networks with the size of their images and the batch size of `predict`.
NETWORKS = {
    "resnet20_cifar": (32, 128),
    "MobileNetV2": (224, 8),
    "ResNet50": (224, 8),
}
NORMS = ("frn", "gn", "rbn")


def make_network(name):
    """Builds a network with random statistics in its batch normalization."""
    size, _ = NETWORKS[name]
    norm = keras_norm.get(keras.layers.BatchNormalization)
    network = classifiers.make_classifier(name, norm, (size, size, 3), 1000)
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.variables:
                positive = variable.name in ("gamma", "moving_variance")
                low, high = (0.5, 1.5) if positive else (-0.2, 0.2)
                variable.assign(generator.uniform(low, high, variable.shape))
    return network


def make_contenders(network):
    """Returns a dict from the text of a contender to its network."""
    folded, report = keras_norm.fold(network, verify=False)
    if report.kept:
        raise SystemExit(f"not all norms of {network.name} fold:\n{report}")
    return {
        "BN": network,
        "BN, folded": folded,
        **{norm: keras_norm.convert(network, norm)[0] for norm in NORMS},
    }


def open_litert(network, folder):
    """Returns `f(images)` that runs the network's LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    path = pathlib.Path(folder) / "model.tflite"
    network.export(str(path), format="litert", verbose=False)
    interpreter = Interpreter(str(path), num_threads=1)
    (source,) = interpreter.get_input_details()
    shape = [1, *network.inputs[0].shape[1:]]
    interpreter.resize_tensor_input(source["index"], shape)
    interpreter.allocate_tensors()

    def run(images):
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()

    return run


def prepare(contenders, batch_size):
    """Returns a dict from (contender, engine) to `(function, images)`."""
    generator = np.random.default_rng(0)
    runs = {}
    for name, network in contenders.items():
        shape = (batch_size, *network.inputs[0].shape[1:])
        images = generator.normal(size=shape).astype("float32")
        with tempfile.TemporaryDirectory() as folder:
            runs[name, "litert"] = open_litert(network, folder), images[:1]
        runs[name, "predict"] = (
            lambda images, network=network: network.predict(
                images, batch_size=batch_size, verbose=0
            ),
            images,
        )
    for run, images in runs.values():
        run(images)
    return runs


def measure(name, num_rounds):
    """Measures one network: a list with a dict per contender and engine."""
    size, batch_size = NETWORKS[name]
    runs = prepare(make_contenders(make_network(name)), batch_size)
    seconds = {key: [] for key in runs}
    for _ in track(range(num_rounds), name):
        for key, (run, images) in runs.items():
            start = time.perf_counter()
            run(images)
            seconds[key].append(time.perf_counter() - start)
    return [
        {
            "network": name,
            "image_size": size,
            "batch_size": 1 if engine == "litert" else batch_size,
            "contender": contender,
            "engine": engine,
            "milliseconds": 1e3 * statistics.median(found),
        }
        for (contender, engine), found in seconds.items()
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--num_rounds", type=int, default=31)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--json", help="write all medians to this file")
    options = parser.parse_args()

    content = {
        "environment": layers_report.environment(),
        "num_rounds": options.num_rounds,
        "rows": [],
    }
    for name in options.networks:
        content["rows"] += measure(name, options.num_rounds)
        if options.json:
            text = json.dumps(content, indent=1)
            pathlib.Path(options.json).write_text(text)
    print(tables.inference(content))


if __name__ == "__main__":
    main()
