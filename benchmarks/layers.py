"""Measures the speed of the layers relative to peers and memory bandwidth.

All contenders run in turn, forward only and forward and backward, on the
feature maps of ResNet-50 with batch size 32. The results are medians over the
rounds. A copy of the tensor in the same rounds measures the bandwidth.

  python benchmarks/layers.py
  KERAS_BACKEND=jax python benchmarks/layers.py
  KERAS_BACKEND=torch python benchmarks/layers.py --json=layers.json
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from rich.progress import track  # noqa: E402

from benchmarks import contenders  # noqa: E402
from benchmarks import engines  # noqa: E402
from benchmarks import layers_report  # noqa: E402

SHAPES = (
    (56, 56, 64),
    (56, 56, 256),
    (28, 28, 512),
    (14, 14, 1024),
    (7, 7, 2048),
)
PASSES = {"forward": False, "forward + backward": True}


def prepare(engine, shape):
    """Compiles all contenders.

    Returns:
        Dict from (contender, mode, pass) to (function, tensors, label).
    """
    backend = keras.backend.backend()
    generator = np.random.default_rng(0)
    x, upstream = (
        generator.normal(size=shape).astype("float32") for _ in range(2)
    )
    tensors = [engine.tensor(x), engine.tensor(upstream)]
    models = {}
    for name, make in contenders.all_contenders(backend).items():
        inputs = keras.Input(batch_shape=shape)
        models[name] = keras.Sequential([inputs, *make()]), tensors
    timm = contenders.timm_frn_tlu(shape[-1]) if backend == "torch" else None
    if timm is not None:
        first = [t.permute(0, 3, 1, 2).contiguous() for t in tensors]
        models["timm FRN, TLU"] = timm.to(first[0].device), first
    runs = {}
    for name, (model, given) in models.items():
        for mode in engine.modes:
            for label, backward in PASSES.items():
                if name == "copy" and backward:
                    continue
                run, key = engine.compile(model, mode, backward)
                engine.wait(run(*given))
                runs[name, mode, label] = run, given, key
    return runs


def measure(engine, shape, num_rounds):
    """Measures one shape: a list with a dict per contender, mode and pass."""
    runs = prepare(engine, shape)
    seconds = {key: [] for key in runs}
    for _ in track(range(num_rounds), f"{shape}"):
        for key, (run, tensors, _) in runs.items():
            start = time.perf_counter()
            engine.wait(run(*tensors))
            seconds[key].append(time.perf_counter() - start)
    return [
        {
            "shape": shape,
            "contender": name,
            "mode": mode,
            "pass": label,
            "milliseconds": 1e3 * float(np.median(seconds[name, mode, label])),
            "temporary_bytes": (
                engine.temporary_bytes(runs[name, mode, label][2])
                if mode == "xla"
                else None
            ),
        }
        for name, mode, label in runs
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--num_rounds", type=int, default=15)
    parser.add_argument("--global_batch_size", type=int, default=32)
    parser.add_argument("--num_shapes", type=int, default=len(SHAPES))
    parser.add_argument("--json", help="write all medians to this file")
    parser.add_argument("--figure", help="write a PNG to this file")
    options = parser.parse_args()

    engine = engines.get_engine(keras.backend.backend())
    rows = []
    for shape in SHAPES[: options.num_shapes]:
        shape = (options.global_batch_size, *shape)
        rows += measure(engine, shape, options.num_rounds)
    environment = layers_report.environment()
    report = layers_report.summarize(rows)
    print(layers_report.as_text(report, environment))
    for path in filter(None, (options.json, options.figure)):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        content = {"environment": environment, "report": report, "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(content, indent=1))
    if options.figure:
        layers_report.draw(report, environment, options.figure)


if __name__ == "__main__":
    main()
