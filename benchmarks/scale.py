"""Estimates the cost of a training step on many accelerators.

Measured from the Keras model: operations, gradients, moving statistics, and
what every layer sends to other replicas, forward and backward. Assumed, each a
flag with its source: speeds and latencies. `scale_costs.py` has the formulas.
It prints Markdown, which is part of docs/scaling.md.

  python benchmarks/scale.py
"""

import argparse
import dataclasses
import math
import os
import pathlib
import sys
from unittest import mock

if __package__ in (None, ""):
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf  # noqa: E402

import keras_norm  # noqa: E402
from benchmarks.scale_costs import FLOAT  # noqa: E402
from benchmarks.scale_costs import Assumptions  # noqa: E402
from benchmarks.scale_costs import Sizes  # noqa: E402
from benchmarks.scale_costs import estimate_step  # noqa: E402
from keras_norm import distribution  # noqa: E402
from keras_norm.step_scope import step_scope  # noqa: E402
from recipes.models import classifiers  # noqa: E402

NORMS = ("frn", "bn", "sync_bn")
NUM_ACCELERATORS = (8, 64, 1024)
COLUMNS = (
    "accelerators",
    "global batch",
    "learning rate",
    "norm",
    "compute, ms",
    "gradients, ms",
    "statistics, ms",
    "step, ms",
    "sent, MB",
    "messages",
    "input, MB/s per host",
)


def measure(model):
    """Returns the `Sizes` of a model that maps images to logits."""
    state = [v for v in model.non_trainable_variables if "float" in v.dtype]
    layers = [layer for layer in model.layers if hasattr(layer, "synchronized")]
    return Sizes(
        flops=sum(_flops(layer) for layer in model.layers),
        gradients=FLOAT * _count(model.trainable_variables),
        state=FLOAT * _count(state),
        messages=tuple(m for layer in layers for m in sent(layer)),
    )


def _count(variables):
    return sum(math.prod(v.shape) for v in variables)


def _flops(layer):
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    return 2 * math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])


def sent(layer):
    """Returns the size in bytes of each message that a layer sends per step."""
    messages = []

    def note(tensors):
        messages.append(FLOAT * sum(math.prod(x.shape) for x in tensors))

    @tf.custom_gradient
    def sum_and_note(*tensors):
        def backward(*upstream):
            note(upstream)
            return upstream

        note(tensors)
        return [tf.identity(x) for x in tensors], backward

    with (
        mock.patch.object(distribution, "count_replicas", lambda: 2),
        mock.patch.object(
            distribution,
            "all_reduce_sum",
            lambda tensors: sum_and_note(*tensors),
        ),
        step_scope(averages_state=True),
        tf.GradientTape() as tape,
    ):
        x = tf.random.normal((2, 2, 2, layer.input.shape[-1]))
        tape.watch(x)
        y = layer(x, training=True)
        tape.gradient(y, x)
    return messages


def table(measured, assumed):
    """Returns a Markdown table: a row per number of accelerators and norm."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|" + " ---: |" * len(COLUMNS),
    ]
    for n in NUM_ACCELERATORS:
        batch = n * assumed.replica_batch_size
        rate = assumed.learning_rate * batch / 256
        for norm, sizes in measured.items():
            step = estimate_step(sizes, n, assumed)
            images = batch / step.seconds / math.ceil(n / assumed.per_host)
            lines.append(
                f"| {n:,} | {batch:,} | {rate:g} | `{norm}` "
                f"| {1e3 * step.compute:.2f} | {1e3 * step.gradients:.2f} "
                f"| {1e3 * (step.small + step.statistics):.2f} "
                f"| {1e3 * step.seconds:.2f} | {step.sent / 1e6:.1f} "
                f"| {step.num_messages} "
                f"| {images * assumed.image_bytes / 1e6:,.0f} |"
            )
    return lines


def saved(measured, assumed):
    """Compares FRN with synchronized batch norm, in sentences."""
    frn, sync = measured["frn"], measured["sync_bn"]
    lines = []
    for n in NUM_ACCELERATORS:
        ours, theirs = (
            estimate_step(sizes, n, assumed) for sizes in (frn, sync)
        )
        fewer = theirs.num_messages - ours.num_messages
        seconds = theirs.small + theirs.statistics - ours.small
        lines.append(
            f"* {n:,} accelerators: FRN sends {fewer} fewer messages per step "
            f"than synchronized batch norm and waits {1e3 * seconds:.2f} ms "
            f"less, which is {seconds / theirs.seconds:.0%} of the step with "
            "synchronized batch norm."
        )
    return lines


def describe(measured):
    """Describes the sizes that were measured from the model."""
    return [
        f"* `{norm}`: {sizes.flops / 1e9:.2f}e9 operations per image in the "
        "forward pass, "
        f"{sizes.gradients / 1e6:.1f} MB of gradients, {sizes.state / 1e3:.0f} "
        f"kB of moving statistics, {len(sizes.messages)} messages in the "
        f"layers, {sum(sizes.messages) / 1e3:.0f} kB"
        for norm, sizes in measured.items()
    ]


def assumptions(assumed):
    """Describes the assumptions, by flag."""
    return [
        f"* `--{field.name}={getattr(assumed, field.name):g}`: "
        f"{field.metadata['help']}"
        for field in dataclasses.fields(assumed)
    ]


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="ResNet50", help="of recipes/models")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(
            f"--{field.name}",
            type=field.type,
            default=field.default,
            help=f"{field.metadata['help']} (default: {field.default:g})",
        )
    return parser.parse_args(arguments)


def main(arguments=None):
    given = vars(parse(arguments))
    name, size = given.pop("model"), given.pop("image_size")
    measured = {
        norm: measure(
            classifiers.make_classifier(
                name, keras_norm.get(norm), (size, size, 3), 1000
            )
        )
        for norm in NORMS
    }
    assumed = Assumptions(**given)
    paragraphs = [
        ["Measured:"],
        describe(measured),
        ["Assumed:"],
        assumptions(assumed),
        table(measured, assumed),
        saved(measured, assumed),
    ]
    print("\n\n".join("\n".join(lines) for lines in paragraphs))


if __name__ == "__main__":
    main()
