"""Measures the accuracy of trained networks after conversion to other norms.

Trains four networks with batch normalization on Fashion-MNIST and converts them
with weights copied, calibrated on 256 unlabeled training images, and distilled
on 5,000. Every accuracy is that of all 10,000 test images. Results are written
after each conversion; the same command resumes.

  python benchmarks/conversion.py --json=docs/measured/conversion.json
  python benchmarks/conversion.py --only=ResNet-20 --draws=1
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_norm  # noqa: E402
from benchmarks import conversion_networks  # noqa: E402
from benchmarks import evidence_data  # noqa: E402
from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes import atomic_io  # noqa: E402

FEW, MANY = 256, 5000
LABEL_STEPS = 600
# Name of a row: norm, arguments of `convert`, and number of images; None for
# copied weights.
CONVERSIONS = {
    "frn, copied": ("frn", {}, None),
    "frn, copied, 600 steps with labels": ("frn", {}, None),
    "frn, affine": ("frn", {"refit": "affine"}, FEW),
    "frn": ("frn", {}, FEW),
    "frn, epsilon_ratio=1, affine": (
        "frn", {"epsilon_ratio": 1.0, "refit": "affine"}, FEW
    ),
    "frn, epsilon_ratio=1": ("frn", {"epsilon_ratio": 1.0}, FEW),
    "frn, epsilon_ratio=10": ("frn", {"epsilon_ratio": 10.0}, FEW),
    "frn, distill_steps=200": ("frn", {"distill_steps": 200}, MANY),
    "frn, distill_steps=600": ("frn", {"distill_steps": 600}, MANY),
    "frn, distill_steps=600, distill_batch_size=2": (
        "frn", {"distill_steps": 600, "distill_batch_size": 2}, MANY
    ),
    "ln, copied": ("ln", {}, None),
    "ln, affine": ("ln", {"refit": "affine"}, FEW),
    "ln": ("ln", {}, FEW),
    "ln, distill_steps=200": ("ln", {"distill_steps": 200}, MANY),
    "gn, groups=4, copied": ("gn", {"groups": 4}, None),
    "gn, groups=4, affine": ("gn", {"groups": 4, "refit": "affine"}, FEW),
    "gn, groups=4": ("gn", {"groups": 4}, FEW),
    "gn, groups=4, distill_steps=200": (
        "gn", {"groups": 4, "distill_steps": 200}, MANY
    ),
    "in": ("in", {}, FEW),
}  # fmt: skip


def convert(model, spec, images, draw):
    """Returns a converted model and the seconds that it took."""
    norm, options, number = spec
    if number is not None:
        order = np.random.default_rng(draw).permutation(len(images))
        options = {**options, "data": images[order[:number]]}
    start = time.perf_counter()
    converted, _ = keras_norm.convert(model, norm, **options)
    return converted, time.perf_counter() - start


def train_with_labels(model, images, labels, draw):
    """Trains a converted model for 600 steps on 5,000 labeled images."""
    order = np.random.default_rng(draw).permutation(len(images))[:MANY]
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, int(0.95 * LABEL_STEPS), warmup_target=1e-3,
        warmup_steps=int(0.05 * LABEL_STEPS),
    )  # fmt: skip
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    repeated = np.tile(order, -(-LABEL_STEPS * 32 // MANY))[: LABEL_STEPS * 32]
    model.fit(images[repeated], labels[repeated], 32, verbose=0)


def measure(model, spec_name, data, draw):
    """Returns the row of one conversion."""
    (images, labels), (test, test_labels), expected = data
    converted, seconds = convert(model, CONVERSIONS[spec_name], images, draw)
    if "with labels" in spec_name:
        start = time.perf_counter()
        train_with_labels(converted, images, labels, draw)
        seconds += time.perf_counter() - start
    found = predict(converted, test)
    return {
        "accuracy": float(np.mean(found == test_labels)),
        "agreement": float(np.mean(found == expected)),
        "seconds": round(seconds, 1),
    }


def predict(model, images):
    return model.predict(images, batch_size=500, verbose=0).argmax(-1)


def _read(path):
    if path and pathlib.Path(path).is_file():
        return json.loads(pathlib.Path(path).read_text())["rows"]
    return []


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data_dir", default="runs/data")
    parser.add_argument(
        "--folder", default="runs/conversion", help="folder of the teachers"
    )
    parser.add_argument(
        "--only",
        choices=tuple(conversion_networks.NETWORKS),
        action="append",
        help="measure this network only; repeatable",
    )
    parser.add_argument("--draws", type=int, default=2, help="draws of images")
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    evidence_data.prepare_fashion_mnist(options.data_dir)
    data = conversion_networks.load_data(options.data_dir)
    rows = _read(options.json)
    known = {(r["network"], r["conversion"], r["draw"]) for r in rows}
    for network in options.only or conversion_networks.NETWORKS:
        model = conversion_networks.get_teacher(
            network, options.folder, options.data_dir, data[0]
        )
        test, test_labels = data[1]
        expected = predict(model, test)
        teacher = float(np.mean(expected == test_labels))
        for draw in range(options.draws):
            for name, (_, _, number) in CONVERSIONS.items():
                is_repeated = number is None and "labels" not in name and draw
                if is_repeated or (network, name, draw) in known:
                    continue
                row = measure(model, name, (*data, expected), draw)
                row = {
                    "network": network, "teacher": teacher,
                    "conversion": name, "draw": draw, **row,
                }  # fmt: skip
                print(json.dumps(row), flush=True)
                rows.append(row)
                if options.json:
                    _write(options.json, rows)
    print(tables.conversion({"rows": rows}))


def _write(path, rows):
    content = {
        "command": "python benchmarks/conversion.py",
        "environment": layers_report.environment(),
        "rows": rows,
    }
    atomic_io.write_text(
        pathlib.Path(path), json.dumps(content, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
