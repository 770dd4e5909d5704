"""What a norm costs in a training step of a detector, on one accelerator.

RetinaNet as `recipes/coco.py` builds it, by Keras' JAX backend: forward and
backward pass, and the update of plain SGD, compiled as one program. The loss is
a mean of squares, as every norm pays alike for the true one; images are noise.
Rounds are interleaved, of each norm the median counts.

  KERAS_BACKEND=jax python benchmarks/detector_step.py --json=runs/detector.json
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ["KERAS_BACKEND"] = "jax"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_norm  # noqa: E402
from recipes import whole  # noqa: E402
from recipes.detection import backbones  # noqa: E402
from recipes.detection import retinanet  # noqa: E402
from recipes.detection.anchors import Anchors  # noqa: E402

BASELINE = "keras_bn"
RATE = 1e-6
NUM_CLASSES = 80


def norm_of(name):
    """The norm of a name; `keras_bn` is Keras' own, behind the same API."""
    if name == BASELINE:
        return keras_norm.get(keras.layers.BatchNormalization)
    return keras_norm.get(name)


def build(options, name):
    """The detector, and `f(trained, moving, images)` that runs one step."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options.precision)
    shape = (options.image_size, options.image_size, 3)
    norm = norm_of(name)
    backbone = backbones.make(options.model, norm, shape)
    anchors = Anchors(options.image_size, 3, 7)
    model = retinanet.make(backbone, norm, anchors, NUM_CLASSES, 256, 4)

    def loss(trained, moving, images):
        outputs, moving = model.stateless_call(
            trained, moving, images, training=True
        )
        return sum(jnp.mean(x**2) for x in outputs.values()), moving

    @jax.jit
    def step(trained, moving, images):
        (value, moving), gradients = jax.value_and_grad(loss, has_aux=True)(
            trained, moving, images
        )
        trained = [
            w - RATE * g for w, g in zip(trained, gradients, strict=True)
        ]
        return trained, moving, value

    return model, step


def measure(options):
    """Milliseconds a step and temporary bytes by norm."""
    generator = np.random.default_rng(0)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    images = jnp.asarray(generator.uniform(-1, 1, shape).astype("float32"))
    steps, states, seconds, memory = {}, {}, {}, {}
    for name in options.norms:
        model, step = build(options, name)
        trained = [v.value for v in model.trainable_variables]
        moving = [v.value for v in model.non_trainable_variables]
        compiled = step.lower(trained, moving, images).compile()
        analysis = compiled.memory_analysis()
        memory[name] = getattr(analysis, "temp_size_in_bytes", None)
        *states[name], _ = compiled(trained, moving, images)
        steps[name], seconds[name] = compiled, []
        print(f"{name}: compiled", flush=True)
    for _ in range(options.num_rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(options.steps_a_round):
                *states[name], value = step(*states[name], images)
            value.block_until_ready()
            elapsed = time.perf_counter() - start
            seconds[name].append(elapsed / options.steps_a_round)
    return {
        name: {
            "milliseconds": 1e3 * float(np.median(each)),
            "lowest": 1e3 * min(each),
            "highest": 1e3 * max(each),
            "temporary_bytes": memory[name],
        }
        for name, each in seconds.items()
    }


def table(options, found):
    """The result as Markdown."""
    first = found[options.norms[0]]
    baseline = f"of `{options.norms[0]}`"
    heads = ("norm", "ms a step", "lowest to highest", baseline)
    lines = [
        f"| {' | '.join(heads)} | temporary memory, GiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found.items():
        memory = row["temporary_bytes"]
        gib = "" if memory is None else f"{memory / 2**30:.2f}"
        lines.append(
            f"| `{name}` | {row['milliseconds']:.1f} | {row['lowest']:.1f} to "
            f"{row['highest']:.1f} | "
            f"{row['milliseconds'] / first['milliseconds']:.2f} | {gib} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="ResNet50", help="the backbone")
    parser.add_argument("--image_size", type=int, default=640)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--precision", default="mixed_bfloat16", help="Keras dtype policy"
    )
    parser.add_argument(
        "--norms",
        nargs="+",
        default=[BASELINE, "bn", "frn", "rbn", "gn"],
        help="names of keras_norm, and keras_bn; the first is the baseline",
    )
    parser.add_argument("--num_rounds", type=int, default=10)
    parser.add_argument("--steps_a_round", type=int, default=5)
    parser.add_argument("--json", help="file for the numbers")
    options = parser.parse_args()
    found = measure(options)
    device = jax.devices()[0].device_kind
    print(
        f"RetinaNet on {options.model}, {options.image_size} px, batch "
        f"{options.batch_size}, {options.precision}, {device}"
    )
    print(table(options, found))
    if options.json:
        facts = {"options": vars(options), "device": device, "norms": found}
        whole.write_text(
            pathlib.Path(options.json), json.dumps(facts, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
