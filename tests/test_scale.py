"""The communication cost model and its table in docs/scaling.md."""

import pathlib
import re
import shlex

import keras
import pytest

import keras_norm
from benchmarks import scale
from benchmarks import scale_costs
from benchmarks.scale_costs import Assumptions
from benchmarks.scale_costs import Sizes
from tests.recipes.command_line import parse_flags

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs/scaling.md").read_text()
# Two hosts of four; bytes and seconds that one can add up by hand.
ASSUMED = Assumptions(
    per_host=4,
    replica_batch_size=5,
    peak_flops=1e6,
    utilization=0.5,
    link_bandwidth=1e6,
    link_latency=1e-3,
    network_bandwidth=1e5,
    network_latency=1e-2,
    image_bytes=1e9,
    learning_rate=0.1,
)


def test_ring_sends_every_chunk_twice_around():
    seconds = scale_costs.ring(8e6, 4, bandwidth=1e6, latency=0.5)
    assert seconds == pytest.approx(2 * 3 * (2e6 / 1e6) + 2 * 3 * 0.5)
    assert scale_costs.ring(8e6, 1, 1e6, 0.5) == 0.0


def test_tree_goes_up_and_down():
    seconds = scale_costs.tree(8e6, 6, bandwidth=1e6, latency=0.5)
    assert seconds == pytest.approx(2 * 8 + 2 * 3 * 0.5)
    assert scale_costs.tree(8e6, 1, 1e6, 0.5) == 0.0


def test_all_reduce_runs_within_hosts_and_then_between_them():
    # A ring in each host, and one between them of a quarter each.
    inside = 2 * 3 / 4 * 4e6 / 1e6 + 6 * 1e-3
    between = 2 * 1 / 2 * 1e6 / 1e5 + 2 * 1e-2
    assert scale_costs.all_reduce(4e6, 8, ASSUMED) == pytest.approx(
        inside + between
    )
    assert scale_costs.all_reduce(4e6, 4, ASSUMED) == pytest.approx(inside)
    assert scale_costs.all_reduce(4e6, 1, ASSUMED) == 0.0


def test_small_messages_use_the_tree():
    hosts = 16
    seconds = scale_costs.all_reduce(4.0, 4 * hosts, ASSUMED)
    inside = 2 * 4 / 1e6 + 2 * 2 * 1e-3
    between = 2 * 1 / 1e5 + 2 * 4 * 1e-2
    assert seconds == pytest.approx(inside + between)


def test_step_is_the_sum_of_its_costs():
    sizes = Sizes(flops=1000, gradients=4_000_000, state=88, messages=(40, 60))
    step = scale_costs.estimate_step(sizes, 8, ASSUMED)
    assert step.compute == pytest.approx(3 * 1000 * 5 / 5e5)
    assert step.gradients == pytest.approx(6.006 + 10.02)
    # Loss and hits are 12 bytes more.
    assert step.small == pytest.approx(
        scale_costs.all_reduce(100, 8, ASSUMED), rel=1e-12
    )
    assert step.statistics == pytest.approx(
        sum(scale_costs.all_reduce(size, 8, ASSUMED) for size in (40, 60))
    )
    assert (step.sent, step.num_messages) == (4_000_200, 4)
    assert step.seconds == pytest.approx(
        step.compute + step.gradients + step.small + step.statistics
    )


def tiny(norm):
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", groups=1)(inputs)
    x = keras_norm.get(norm).layer()(x)
    x = keras.layers.DepthwiseConv2D(2, use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


# 3 * 3 * 3 * 4 at 4 x 3 places, 2 * 2 * 4 at 3 x 2, and 4 * 10.
FLOPS = 2 * (108 * 12 + 16 * 6 + 40)
# Convolution 108 + 4, depthwise 16, dense 40 + 10; gamma and beta.
WEIGHTS = 178 + 8


@pytest.mark.parametrize(
    ("norm", "state", "messages"),
    [
        ("frn", 0, ()),
        ("bn", 32, ()),
        # The count and the sums, then the squares; going back the other way.
        ("sync_bn", 32, (20, 16, 16, 20)),
    ],
)
def test_sizes_are_measured_from_the_model(norm, state, messages):
    assert scale.measure(tiny(norm)) == Sizes(
        flops=FLOPS, gradients=4 * WEIGHTS, state=state, messages=messages
    )


def test_a_row_shows_the_estimated_step():
    sizes = Sizes(flops=1000, gradients=4_000_000, state=0, messages=())
    row = scale.table({"frn": sizes}, ASSUMED)[2]
    step = scale_costs.estimate_step(sizes, 8, ASSUMED)
    # 40 images a step, half of them on each host.
    rate = 20 * 1e9 / step.seconds / 1e6
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["8", "40", "0.015625", "`frn`", "30.00"]
    assert cells[-4:] == [
        f"{1e3 * step.seconds:.2f}",
        "4.0",
        "2",
        f"{rate:,.0f}",
    ]


def test_flags_change_the_assumptions():
    given = scale.parse(["--per_host=4", "--network_latency=1e-5"])
    assert (given.per_host, given.network_latency) == (4, 1e-5)
    assert given.utilization == Assumptions().utilization


def test_the_page_shows_what_the_command_prints(capsys):
    scale.main([])
    printed = capsys.readouterr().out.strip()
    (shown,) = re.findall(
        r"<!-- python benchmarks/scale.py -->(.*?)<!-- end -->", TEXT, re.DOTALL
    )
    assert printed == shown.strip()


def test_commands_of_the_page_are_valid():
    from recipes.classification.config import Config

    lines = "".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL))
    # tests/test_pages.py checks the flags of all commands.
    commands = [c for c in lines.splitlines() if "recipes/imagenet.py" in c]
    assert len(commands) == 6
    for command in commands:
        variables, _, line = command.rpartition("python ")
        script, *options = shlex.split(line)
        assert (ROOT / script).is_file()
        config = parse_flags(Config, *options)
        assert (config.strategy == "multi_worker") == bool(variables)
