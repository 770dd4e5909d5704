"""Cost model of a training step: formulas and assumptions.

An all-reduce of B bytes over n accelerators, g of them in each of m hosts:

    ring(B, n) = 2 * (n - 1) / n * B / bandwidth + 2 * (n - 1) * latency
    tree(B, n) = 2 * B / bandwidth + 2 * ceil(log2(n)) * latency
    all_reduce(B) = fastest(B, g) in hosts + fastest(B / g, m) between them

where `fastest` is the faster of ring and tree. Between hosts, every accelerator
sends B / g bytes over its own link. The estimate of a step assumes that nothing
overlaps:

    step = compute + gradients + small message + statistics
    compute = 3 * operations forward * images per replica / (peak * utilization)

Gradients are one message, and losses and moving statistics another, as in
`keras_norm.training`. The following layers wait for the messages of a
synchronized layer, forward and backward.
"""

import dataclasses
import math

FLOAT = 4
# Loss, accuracy and top-5 accuracy.
NUM_VALUES = 3
# The backward pass computes gradients of inputs and of weights.
PASSES = 3


def _assume(default, help):
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Assumed quantities. Each is a flag."""

    per_host: int = _assume(8, "accelerators per host, as in a DGX H100")
    replica_batch_size: int = _assume(
        32, "images per replica, as in FRN's paper"
    )
    peak_flops: float = _assume(
        989e12, "operations/s, H100 SXM, dense bfloat16 (NVIDIA's data sheet)"
    )
    utilization: float = _assume(0.15, "fraction of the peak that is reached")
    link_bandwidth: float = _assume(
        450e9,
        "bytes/s in each direction within a host, NVLink 4 (same data sheet)",
    )
    link_latency: float = _assume(2e-6, "seconds per hop within a host")
    network_bandwidth: float = _assume(
        50e9, "bytes/s per accelerator between hosts, 400 Gb/s InfiniBand NDR"
    )
    network_latency: float = _assume(5e-6, "seconds per hop between hosts")
    image_bytes: float = _assume(
        115e3,
        "of an encoded image: ILSVRC2012_img_train.tar / number of images",
    )
    learning_rate: float = _assume(0.1, "for a global batch of 256")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Measured sizes of a model.

    Attributes:
        flops: Operations of a forward pass of one image, two a multiplication
            and addition, of convolutions and dense layers.
        gradients: Bytes of all gradients.
        state: Bytes of moving statistics.
        messages: Bytes of every message that a layer waits for in a step.
    """

    flops: int
    gradients: int
    state: int
    messages: tuple


def ring(size, n, bandwidth, latency):
    """Computes the seconds of a ring all-reduce."""
    return 2 * (n - 1) / n * size / bandwidth + 2 * (n - 1) * latency


def tree(size, n, bandwidth, latency):
    """Computes the seconds of an all-reduce along a tree."""
    if n == 1:
        return 0.0
    return 2 * size / bandwidth + 2 * math.ceil(math.log2(n)) * latency


def all_reduce(size, num_accelerators, assumed):
    """Computes the seconds of an all-reduce in hosts, then between them."""

    def fastest(size, n, *link):
        return min(ring(size, n, *link), tree(size, n, *link))

    inside = min(assumed.per_host, num_accelerators)
    hosts = math.ceil(num_accelerators / inside)
    return fastest(
        size, inside, assumed.link_bandwidth, assumed.link_latency
    ) + fastest(
        size / inside, hosts, assumed.network_bandwidth, assumed.network_latency
    )


@dataclasses.dataclass(frozen=True)
class Step:
    """Costs of a step. Times are in seconds."""

    compute: float
    gradients: float
    small: float
    statistics: float
    sent: int
    num_messages: int

    @property
    def seconds(self):
        return self.compute + self.gradients + self.small + self.statistics


def estimate_step(sizes, num_accelerators, assumed):
    """Estimates the `Step` of a model on a number of accelerators."""

    def reduce(size):
        return all_reduce(size, num_accelerators, assumed)

    operations = PASSES * sizes.flops * assumed.replica_batch_size
    small = sizes.state + FLOAT * NUM_VALUES
    return Step(
        compute=operations / (assumed.peak_flops * assumed.utilization),
        gradients=reduce(sizes.gradients),
        small=reduce(small),
        statistics=sum(reduce(message) for message in sizes.messages),
        sent=sizes.gradients + small + sum(sizes.messages),
        num_messages=2 + len(sizes.messages),
    )
