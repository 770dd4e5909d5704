"""Trains the batch sizes of docs/results.md for longer, on one accelerator.

Uses Keras' JAX backend on one device without Python between steps: an epoch is
one compiled loop that trains all seeds at once. Network, norms, optimizer and
learning rate rule are the same as in the recipes. The data are the four files
of Fashion-MNIST, as published or as packaged by Debian.

  python benchmarks/long_training.py --images=/usr/share/datasets/fashion-mnist
"""

import argparse
import gzip
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
from recipes import atomic_io  # noqa: E402
from recipes.models import classifiers  # noqa: E402

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
WARMUP = 0.1  # Fraction of the training.
EVAL_BATCH = 500


def read(folder, name):
    """Reads an IDX file as an array."""
    content = gzip.decompress(
        (pathlib.Path(folder) / f"{name}.gz").read_bytes()
    )
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, 4)
    return np.frombuffer(content, np.uint8, -1, 4 + 4 * rank).reshape(shape)


def load(folder):
    """Loads images uint8 `(n, 28, 28, 1)` and labels of both splits."""
    return {
        split: (
            jnp.asarray(read(folder, f"{prefix}-images-idx3-ubyte")[..., None]),
            jnp.asarray(read(folder, f"{prefix}-labels-idx1-ubyte")),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def build(network, norm, seed):
    """Builds a network; returns it, its trained and its moving arrays."""
    keras.utils.set_random_seed(seed)
    model = classifiers.make_classifier(network, norm, (28, 28, 1), 10)
    trained = [v.value for v in model.trainable_variables]
    moving = [v.value for v in model.non_trainable_variables]
    return model, trained, moving


def learning_rate(step, num_steps, peak):
    """Computes a cosine warmup to the peak, then cosine decay to 0."""
    warmup = WARMUP * num_steps
    up = (1 - jnp.cos(jnp.pi * jnp.minimum(step / warmup, 1))) / 2
    done = jnp.maximum(step - warmup, 0) / (num_steps - warmup)
    return peak * up * (1 + jnp.cos(jnp.pi * done)) / 2


def make_epoch(model, data, num_steps, peak):
    """Returns `f(state, order, step)`, an epoch of all seeds at once."""
    images, labels = data["train"]
    # As in the recipes, norms, thresholds and biases do not decay.
    decays = [v.ndim > 1 for v in model.trainable_variables]

    def loss(trained, moving, x, y):
        logits, moving = model.stateless_call(trained, moving, x, training=True)
        entropy = -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()
        return entropy, moving

    def update(state, x, y, rate):
        trained, moving, speeds = state
        (value, moving), gradients = jax.value_and_grad(loss, has_aux=True)(
            trained, moving, x, y
        )
        gradients = [
            g + WEIGHT_DECAY * w if decayed else g
            for g, w, decayed in zip(gradients, trained, decays, strict=True)
        ]
        speeds = [
            MOMENTUM * v - rate * g
            for v, g in zip(speeds, gradients, strict=True)
        ]
        trained = [w + v for w, v in zip(trained, speeds, strict=True)]
        return (trained, moving, speeds), value

    def one_step(carry, indices):
        state, step = carry
        x = images[indices].astype("float32") / 127.5 - 1
        rate = learning_rate(step, num_steps, peak)
        state, value = jax.vmap(update, in_axes=(0, 0, 0, None))(
            state, x, labels[indices], rate
        )
        return (state, step + 1), value

    @jax.jit
    def epoch(state, order, step):
        (state, _), values = jax.lax.scan(one_step, (state, step), order)
        return state, values.mean(axis=0)

    return epoch


def make_accuracy(model, data):
    """Returns `f(state)`, which computes the test accuracy of every seed."""
    images, labels = data["test"]

    def evaluate(trained, moving):
        def count_correct(i):
            rows = i * EVAL_BATCH + jnp.arange(EVAL_BATCH)
            x = images[rows].astype("float32") / 127.5 - 1
            logits, _ = model.stateless_call(trained, moving, x, training=False)
            return (logits.argmax(-1) == labels[rows]).sum()

        counts = jax.lax.map(
            count_correct, jnp.arange(len(labels) // EVAL_BATCH)
        )
        return counts.sum() / len(labels)

    return jax.jit(lambda state: jax.vmap(evaluate)(state[0], state[1]))


def train(options, data, norm, batch_size):
    """Trains; returns accuracies and losses `(epochs, seeds)`, and seconds."""
    built = [build(options.network, norm, s) for s in range(options.seeds)]
    model = built[0][0]
    trained, moving = (
        [jnp.stack(values) for values in zip(*some, strict=True)]
        for some in zip(*[b[1:] for b in built], strict=True)
    )
    state = trained, moving, [jnp.zeros_like(w) for w in trained]
    num_train = len(data["train"][1])
    steps = num_train // batch_size
    if options.max_steps:
        steps = min(steps, options.max_steps)
    peak = options.learning_rate * batch_size / 256
    epoch = make_epoch(model, data, steps * options.epochs, peak)
    accuracy = make_accuracy(model, data)
    generators = [np.random.default_rng(s) for s in range(options.seeds)]
    start, accuracies, losses = time.perf_counter(), [], []
    for number in range(options.epochs):
        order = np.stack(
            [g.permutation(num_train)[: steps * batch_size] for g in generators]
        )
        order = order.reshape(options.seeds, steps, batch_size).swapaxes(0, 1)
        state, loss = epoch(state, jnp.asarray(order), float(number * steps))
        accuracies.append(np.asarray(accuracy(state)).tolist())
        losses.append(np.asarray(loss).tolist())
    return accuracies, losses, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--images", required=True, help="folder with the four files"
    )
    parser.add_argument("--network", default="resnet20_cifar")
    parser.add_argument(
        "--norms",
        nargs="+",
        default=["bn", "gn", "frn", "frn+relu", "rbn"],
        help="norms by name; +relu replaces TLU",
    )
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, default=[64, 8, 2]
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--learning_rate",
        type=float,
        default=0.8,
        help="learning rate for batch size 256",
    )
    parser.add_argument(
        "--max_steps",
        type=int,
        help="maximum number of steps per epoch, for short trials",
    )
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    data = load(options.images)
    device = jax.devices()[0].device_kind
    print(
        f"{options.network}, {options.epochs} epochs, {options.seeds} seeds, "
        f"on {device}; test top-1, %, mean ± sample standard deviation",
        flush=True,
    )
    rows = stored(options, device)
    for batch_size in options.batch_sizes:
        for name in options.norms:
            key = {"norm": name, "batch_size": batch_size}
            row = next((r for r in rows if key.items() <= r.items()), None)
            if row is None:
                row = {**key, **measure(options, data, name, batch_size)}
                rows.append(row)
                save(options, device, rows)
            print(describe(row), flush=True)


def measure(options, data, name, batch_size):
    """Trains one norm with one batch size."""
    norm = keras_norm.get(name.removesuffix("+relu"))
    if name.endswith("+relu"):
        norm = norm.with_activation("relu")
    accuracies, losses, seconds = train(options, data, norm, batch_size)
    return {"accuracies": accuracies, "losses": losses, "seconds": seconds}


def describe(row):
    last = 100 * np.array(row["accuracies"][-1])
    deviation = f" ± {last.std(ddof=1):.2f}" if len(last) > 1 else ""
    return (
        f"batch {row['batch_size']:3d}  {row['norm']:9s} {last.mean():.2f}"
        f"{deviation}  {row['seconds']:.0f} s"
    )


def stored(options, device):
    """Reads the entries of --json, which are not trained again."""
    path = pathlib.Path(options.json or "")
    if not options.json or not path.exists():
        return []
    content = json.loads(path.read_text())
    if content["settings"] != settings(options, device):
        sys.exit(
            f"error: {path} was written with other settings: "
            f"{content['settings']}. Choose another --json."
        )
    return content["rows"]


def save(options, device, rows):
    if options.json:
        content = {"settings": settings(options, device), "rows": rows}
        atomic_io.write_text(
            pathlib.Path(options.json), json.dumps(content, indent=1) + "\n"
        )


def settings(options, device):
    """Returns the settings that the results depend on."""
    names = ("network", "epochs", "seeds", "learning_rate", "max_steps")
    return {
        **{name: getattr(options, name) for name in names},
        "device": device,
        "jax": jax.__version__,
        "keras": keras.__version__,
    }


if __name__ == "__main__":
    main()
