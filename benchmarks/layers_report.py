"""Ratios, table and figure of the medians of `benchmarks/layers.py`."""

import importlib.metadata
import math
import os
import platform

import keras

BOTH = "forward + backward"
# Minimum number of moved tensors of the input's size: the forward pass reads x
# and writes y; the backward pass reads x and dy and writes dx.
TENSORS = {"forward": 2, BOTH: 5}
TENSORS_OF_A_COPY = 2
OURS = "FRN(activation=tlu)"
# Comparisons: our contender, the other one, the mode of both (or the best mode
# of each), and the largest acceptable ratio with TensorFlow on 2 cores.
GOALS = (
    (OURS, "Keras BN, ReLU", "best", 0.35),
    (OURS, "Keras BN, ReLU", "xla", 0.22),
    (OURS, "Keras BN, ReLU", "graph", 0.65),
    (OURS, "textbook FRN, TLU", "best", 0.30),
    (OURS, "fused BN, ReLU", "best", 1.0),
    (OURS, "limit", "best", 2.0),
    ("RBN", "Keras BN", "best", 0.40),
    ("RBN", "RBN by formula", "best", 0.20),
    (OURS, "timm FRN, TLU", "best", None),
    ("FRN, TLU", "Keras BN, ReLU", "best", None),
    ("FRN, TLU", "limit", "best", None),
    ("BN", "Keras BN", "best", None),
    ("BN", "Keras BN", "graph", None),
    ("RBN", "limit", "best", None),
)


def environment():
    """Returns the backend, processor and versions of the measurement."""
    versions = {"python": platform.python_version()}
    for name in ("keras", "tensorflow", "jax", "torch", "timm"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "backend": keras.backend.backend(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def summarize(rows):
    """Computes times by contender, mode and pass, and the ratios of `GOALS`."""
    times = {}
    for row in rows:
        key = row["contender"], row["mode"], row["pass"]
        times.setdefault(key, {})[tuple(row["shape"])] = row["milliseconds"]
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    copy = _best(times, "copy", "forward", modes)
    for label, tensors in TENSORS.items():
        times["limit", modes[0], label] = {
            shape: value * tensors / TENSORS_OF_A_COPY
            for shape, value in copy.items()
        }
    temporary = {
        row["contender"]: max(
            (r["temporary_bytes"] or 0) / (4 * math.prod(r["shape"]))
            for r in rows
            if r["contender"] == row["contender"] and r["pass"] == BOTH
        )
        for row in rows
        if row["temporary_bytes"] is not None and row["pass"] == BOTH
    }
    comparisons = []
    for ours, theirs, mode, goal in GOALS:
        chosen = modes if mode == "best" else [mode]
        left = _best(times, ours, BOTH, chosen)
        right = _best(
            times, theirs, BOTH, modes if theirs == "limit" else chosen
        )
        if left and right:
            ratios = [left[shape] / right[shape] for shape in left]
            comparisons.append(
                {
                    "ours": ours,
                    "theirs": theirs,
                    "mode": mode,
                    "goal": goal if "graph" in modes else None,
                    "ratio": _geometric_mean(ratios),
                    "by_shape": ratios,
                }
            )
    return {
        "times": [
            {
                "contender": name,
                "mode": mode,
                "pass": label,
                "milliseconds": list(values.values()),
            }
            for (name, mode, label), values in times.items()
        ],
        "shapes": [list(shape) for shape in copy],
        "temporary_tensors": temporary,
        "comparisons": comparisons,
    }


def _geometric_mean(ratios):
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms))


def _best(times, contender, label, modes):
    """Returns the time in the best of some modes, by shape."""
    found = [
        times[contender, mode, label]
        for mode in modes
        if (contender, mode, label) in times
    ]
    if not found:
        return {}
    return {shape: min(t[shape] for t in found) for shape in found[0]}


def as_text(report, environment):
    """Formats the report as Markdown."""
    shapes = [str(tuple(shape)) for shape in report["shapes"]]
    versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
    lines = [
        "",
        (
            f"{environment['cores']} cores of {environment['processor']}, "
            f"{environment['backend']}; {versions}"
        ),
        "",
        f"| milliseconds | mode | pass | {' | '.join(shapes)} |",
        "| --- | --- | --- |" + " ---: |" * len(shapes),
    ]
    for row in report["times"]:
        values = " | ".join(f"{v:.1f}" for v in row["milliseconds"])
        lines.append(
            f"| {row['contender']} | {row['mode']} | {row['pass']} | {values} |"
        )
    lines += [
        "",
        f"Ratios, {BOTH}, geometric mean over the shapes:",
        "",
        "| ours | against | mode | ratio | goal | by shape |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for row in report["comparisons"]:
        goal = "" if row["goal"] is None else f"{row['goal']:.2f}"
        by_shape = ", ".join(f"{r:.2f}" for r in row["by_shape"])
        lines.append(
            f"| {row['ours']} | {row['theirs']} | {row['mode']} "
            f"| {row['ratio']:.2f} | {goal} | {by_shape} |"
        )
    if report["temporary_tensors"]:
        lines += [
            "",
            (
                f"Peak of temporary memory under XLA, {BOTH}, largest over "
                "the shapes, in tensors of the input's size:"
            ),
            "",
            "| contender | temporary |",
            "| --- | ---: |",
        ]
        lines += [
            f"| {name} | {value:.2f} |"
            for name, value in report["temporary_tensors"].items()
        ]
    return "\n".join(lines)


def draw(report, environment, path):
    """Draws the times as multiples of the bandwidth limit, to a PNG file."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    limit = next(
        r["milliseconds"]
        for r in report["times"]
        if r["contender"] == "limit" and r["pass"] == BOTH
    )
    bars = {}
    for row in report["times"]:
        if row["pass"] == BOTH and row["contender"] != "limit":
            bars[f"{row['contender']}, {row['mode']}"] = _geometric_mean(
                value / least
                for value, least in zip(row["milliseconds"], limit, strict=True)
            )
    names = sorted(bars, key=bars.get, reverse=True)
    ours = ("FRN", "RBN,", "BN,")
    colors = ["#1b6ca8" if n.startswith(ours) else "#b8b8b8" for n in names]
    figure, axes = pyplot.subplots(
        figsize=(8, 0.32 * len(names) + 1.2), layout="constrained"
    )
    drawn = axes.barh(names, [bars[n] for n in names], color=colors)
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel(
        f"{BOTH}, relative to the bandwidth limit of moving five tensors\n"
        "(geometric mean over ResNet-50's shapes, batch size "
        f"{report['shapes'][0][0]})"
    )
    axes.set_title(
        f"{environment['backend']}, {environment['cores']} cores; ours in blue",
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
