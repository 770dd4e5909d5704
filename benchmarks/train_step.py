"""Measures the time of a training step per norm, and the loop's overhead.

Runs complete steps of `recipes/imagenet.py` on one device (forward, backward
and update) with one batch of noise in memory. All contenders run in turn; the
results are medians over the rounds. `keras_bn` is Keras' own network with the
same step. With --loop, the recipe's training loop runs --loop_steps steps, and
is compared with direct calls of the same compiled step.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --model=resnet20_cifar --image_size=32 \\
      --global_batch_size=64
  python benchmarks/train_step.py --model=resnet20_cifar --image_size=32 \\
      --global_batch_size=64 --loop
"""

import argparse
import dataclasses
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
import tensorflow as tf  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes.classification.config import Config  # noqa: E402
from recipes.classification.task import ImageClassification  # noqa: E402
from recipes.classification.trainer import Classifier  # noqa: E402
from recipes.config import base as config_lib  # noqa: E402
from recipes.data import input_pipeline as data_lib  # noqa: E402
from recipes.models import classifiers  # noqa: E402
from recipes.run_dir.metrics_log import MetricsLog  # noqa: E402
from recipes.training import multi_worker  # noqa: E402
from recipes.training import runner  # noqa: E402
from recipes.training import signals  # noqa: E402
from recipes.training.compiled_steps import CompiledSteps  # noqa: E402
from recipes.training.loop import TrainingLoop  # noqa: E402

BASELINE = "keras_bn"
# Number of steps between two metrics entries of the measured loop.
LOG_EVERY_STEPS = 10


def make_config(options, norm, xla):
    """Makes the config of a contender."""
    flags = {
        "dataset": "fake",
        "model": options.model,
        "norm": "bn" if norm == BASELINE else norm,
        "image_size": options.image_size,
        "global_batch_size": options.global_batch_size,
        "precision": options.precision,
        "train_steps": 10**6,
        "xla": xla,
        "strategy": "one_device",
        "mode": "train",
    }
    return config_lib.make_config(Config, flags)


def build(config, data, strategy, is_baseline):
    """Builds the trainer of a contender."""
    if not is_baseline:
        return runner.build_trainer(
            config, ImageClassification(), data, strategy
        )
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        model = keras_network(config, data)
        trainer = Classifier(model, config, pads=False)
        trainer.compile(keras.optimizers.SGD(0.01, config.momentum))
    return trainer


def keras_network(config, data):
    """Makes the network with Keras' own batch normalization and ReLU."""
    if hasattr(keras.applications, config.model):
        network = getattr(keras.applications, config.model)(
            weights=None,
            input_shape=data.image_shape,
            classes=data.num_classes,
            classifier_activation=None,
        )
        return classifiers.with_float32_logits(network)

    class KerasNorm:
        name = BASELINE
        layer = staticmethod(keras.layers.BatchNormalization)
        activation = staticmethod(keras.layers.ReLU)

    return classifiers.make_classifier(
        config.model, KerasNorm, data.image_shape, data.num_classes
    )


def compiled_step(trainer, strategy):
    """Returns `f(batch)`, which runs one step and returns its loss."""

    @tf.function
    def step(batch):
        return strategy.run(trainer.train_step, (batch,))["loss"]

    return step


def time_norms(options):
    """Measures milliseconds per step by norm and use of XLA."""
    strategy = tf.distribute.OneDeviceStrategy(device())
    steps, batch = {}, None
    for xla in options.xla:
        for norm in options.norms:
            config = make_config(options, norm, xla)
            data = data_lib.make_data(config, ImageClassification())
            if batch is None:
                batch = next(iter(data.train(0)))
            trainer = build(config, data, strategy, norm == BASELINE)
            steps[norm, xla] = compiled_step(trainer, strategy)
            for _ in range(2):
                float(steps[norm, xla](batch))
    seconds = {key: [] for key in steps}
    for _ in track(range(options.num_rounds), options.model):
        for key, step in steps.items():
            start = time.perf_counter()
            float(step(batch))
            seconds[key].append(time.perf_counter() - start)
    return {key: 1e3 * float(np.median(s)) for key, s in seconds.items()}


def time_loop(options):
    """Measures milliseconds per step with and without the recipe's loop.

    One-time costs, such as starting the input pipeline, are not included.

    Returns:
        Medians over rounds: with the loop, without it, and their ratio.
    """
    strategy = tf.distribute.OneDeviceStrategy(device())
    config = make_config(options, options.norms[0], xla=False)
    config = dataclasses.replace(config, log_every_steps=LOG_EVERY_STEPS)
    data = data_lib.make_data(config, ImageClassification())
    trainer = runner.build_trainer(
        config, ImageClassification(), data, strategy
    )
    steps = CompiledSteps(trainer, data, strategy)
    step = compiled_step(trainer, strategy)
    bare, whole = [], []
    for _ in track(range(options.num_rounds + 1), "loop"):
        bare.append(run_bare(steps, step, options.loop_steps))
        whole.append(run_loop(config, steps, options.loop_steps))
    # The first round compiles.
    whole, bare = 1e3 * np.array(whole[1:]), 1e3 * np.array(bare[1:])
    return [float(np.median(s)) for s in (whole, bare, whole / bare)]


def run_bare(steps, step, num_steps):
    """Measures seconds per step of direct calls of the compiled step."""
    batches = steps.training_batches(0)
    for _ in range(LOG_EVERY_STEPS):
        loss = step(next(batches))
    float(loss)
    start = time.perf_counter()
    for _ in range(num_steps - LOG_EVERY_STEPS):
        loss = step(next(batches))
    float(loss)
    return (time.perf_counter() - start) / (num_steps - LOG_EVERY_STEPS)


def run_loop(config, steps, num_steps):
    """Measures seconds per step of the recipe's loop with all its output."""
    with tempfile.TemporaryDirectory() as folder:
        records = MetricsLog(pathlib.Path(folder), config.best_metric)
        training = TrainingLoop(
            config,
            ImageClassification(),
            dataclasses.replace(steps.data, num_steps=num_steps),
            steps,
            records,
            lambda step, seconds: None,
            multi_worker.ChiefBroadcast(None, multi_worker.Workers()),
            0,
            0.0,
        )
        training.run(signals.Preemption())
        _, rates = records.series("train/images_per_second")
    return config.global_batch_size / statistics.harmonic_mean(rates)


def device():
    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def show(options, milliseconds):
    """Prints the times and their ratios to Keras' batch normalization."""
    title = (
        f"{options.model}, {options.image_size} px, batch "
        f"{options.global_batch_size}, {options.precision}"
    )
    table = Table(title=title, box=box.SIMPLE)
    for heading in ("norm", "XLA", "ms per step", f"of {BASELINE}", "goal"):
        table.add_column(heading, justify="right")
    for (norm, xla), value in milliseconds.items():
        ratio = value / milliseconds[BASELINE, xla]
        goal = f"at most {tables.GOALS[norm]}" if norm in tables.GOALS else ""
        table.add_row(
            norm, "on" if xla else "off", f"{value:,.1f}", f"{ratio:.2f}", goal
        )
    Console().print(table)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="ResNet50V2")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--global_batch_size", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    parser.add_argument(
        "--norms", nargs="+", default=["bn", "frn", "rbn", "gn"]
    )
    parser.add_argument(
        "--xla", nargs="+", default=["off", "on"], choices=["off", "on"]
    )
    parser.add_argument("--num_rounds", type=int, default=7)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--loop_steps", type=int, default=50)
    parser.add_argument("--json", help="write the medians to this file")
    options = parser.parse_args()
    options.xla = [choice == "on" for choice in options.xla]

    content = {"environment": layers_report.environment(), **vars(options)}
    if options.loop:
        whole, bare, ratio = time_loop(options)
        print(
            f"{options.model}: {whole:.1f} ms per step with the loop, "
            f"{bare:.1f} ms without: {ratio - 1:+.1%} in the median round"
        )
        content.update(loop=whole, bare=bare, ratio=ratio)
    else:
        options.norms = [BASELINE, *options.norms]
        milliseconds = time_norms(options)
        show(options, milliseconds)
        content["milliseconds"] = [
            {"norm": norm, "xla": xla, "milliseconds": value}
            for (norm, xla), value in milliseconds.items()
        ]
    if options.json:
        pathlib.Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(options.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
