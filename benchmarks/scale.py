"""What a training step costs on many accelerators, with and without batch norm.

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
from benchmarks.scale_costs import reckon  # noqa: E402
from keras_norm import distribution  # noqa: E402
from keras_norm.batch_scope import batch_scope  # noqa: E402
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
    "input, MB/s a host",
)


def measure(model):
    """The `Sizes` of a model from images to logits."""
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
    """Bytes of the messages of a step, as the layer's own code sends them."""
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
        mock.patch.object(distribution, "count", lambda: 2),
        mock.patch.object(
            distribution,
            "all_reduce_sum",
            lambda tensors: sum_and_note(*tensors),
        ),
        batch_scope(averages_state=True),
        tf.GradientTape() as tape,
    ):
        x = tf.random.normal((2, 2, 2, layer.input.shape[-1]))
        tape.watch(x)
        y = layer(x, training=True)
        tape.gradient(y, x)
    return messages


def table(measured, assumed):
    """Lines of Markdown, a row for each number of accelerators and norm."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|" + " ---: |" * len(COLUMNS),
    ]
    for n in NUM_ACCELERATORS:
        batch = n * assumed.replica_batch_size
        rate = assumed.learning_rate * batch / 256
        for norm, sizes in measured.items():
            step = reckon(sizes, n, assumed)
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
    """Sentences on what FRN saves against synchronized batch norm."""
    frn, sync = measured["frn"], measured["sync_bn"]
    lines = []
    for n in NUM_ACCELERATORS:
        ours, theirs = (reckon(sizes, n, assumed) for sizes in (frn, sync))
        fewer = theirs.num_messages - ours.num_messages
        seconds = theirs.small + theirs.statistics - ours.small
        lines.append(
            f"* {n:,} accelerators: FRN sends {fewer} messages a step fewer "
            f"than synchronized batch norm, and waits {1e3 * seconds:.2f} ms "
            f"less, {seconds / theirs.seconds:.0%} of its step."
        )
    return lines


def describe(measured):
    """Sentences on what was counted in the model."""
    return [
        f"* `{norm}`: {sizes.flops / 1e9:.2f}e9 operations an image forward, "
        f"{sizes.gradients / 1e6:.1f} MB of gradients, {sizes.state / 1e3:.0f} "
        f"kB of moving statistics, {len(sizes.messages)} messages inside the "
        f"passes, {sum(sizes.messages) / 1e3:.0f} kB"
        for norm, sizes in measured.items()
    ]


def assumptions(assumed):
    """Lines on what was assumed, by flag."""
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
