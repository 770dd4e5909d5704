"""Renders the tables of the documentation from docs/measured/*.json.

A table stands between `<!-- table NAME -->` and `<!-- end -->` in the page
that `TABLES` names. `make measure` measures all of them again, except
docs/measured/backends.json, which needs other backends and a GPU.

  python benchmarks/tables.py
"""

import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from recipes import atomic_io  # noqa: E402
from recipes.experiments import results  # noqa: E402

MEASURED = ROOT / "docs/measured"
MARKED = re.compile(
    r"(<!-- table (\w+) -->\n)(.*?)(\n?<!-- end -->)", re.DOTALL
)
# Largest allowed step time relative to the step with Keras' batch norm.
GOALS = {"frn": 1.0, "rbn": 1.05}
# The text of each contender of benchmarks/layers.py.
LAYERS = {
    "FRN(activation=tlu)": '`FRN(activation="tlu")`',
    "FRN, TLU": "`FRN`, `TLU`",
    "textbook FRN, TLU": "FRN, TLU written naively",
    "Keras BN, ReLU": "Keras' BN, ReLU",
    "Keras GN, ReLU": "Keras' GN, ReLU",
    "fused BN, ReLU": "oneDNN's fused BN, ReLU",
    "RBN": "`RBN`",
    "RBN by formula": "RBN written naively",
    "BN": "`BatchNormalization`",
    "Keras BN": "Keras' BN",
    "limit": "the limit: 2.5 copies",
}
# Columns of the table of backends: two compared contenders, and the heading.
COMPARED = {
    ("FRN(activation=tlu)", "Keras BN, ReLU"): "FRN + TLU / Keras' BN + ReLU",
    ("RBN", "Keras BN"): "RBN / Keras' BN",
    ("FRN(activation=tlu)", "textbook FRN, TLU"): "FRN + TLU / naive",
    ("RBN", "RBN by formula"): "RBN / naive",
    ("FRN(activation=tlu)", "timm FRN, TLU"): "FRN + TLU / timm's",
    ("FRN(activation=tlu)", "limit"): "FRN + TLU / limit",
    ("RBN", "limit"): "RBN / limit",
}


def replicas(content):
    """Loss and accuracy before and after reloading, means over the seeds."""
    heads = ["layer", "loss", "after reload", "accuracy", "after reload"]
    by_layer = {}
    for row in content["rows"]:
        by_layer.setdefault(row["layer"], []).append(row)
    rows = []
    for layer, runs in by_layer.items():
        cells = [
            results.format_mean(
                [run[when][name] for run in runs], digits, factor
            )
            for name, factor, digits in (("loss", 1, 4), ("accuracy", 100, 2))
            for when in ("trained", "reloaded")
        ]
        changed = max(
            abs(run["reloaded"]["loss"] - run["trained"]["loss"])
            for run in runs
        )
        rows.append([f"`{layer}`", *cells, f"{changed:.4f}"])
    return markdown([*heads, "largest change of a loss"], rows)


def layers(content):
    """Milliseconds of each contender in its faster mode, by shape."""
    shapes = content["report"]["shapes"]
    heads = ["", *("x".join(map(str, shape[1:])) for shape in shapes)]
    best = {}
    for row in content["report"]["times"]:
        if row["pass"] == "forward + backward":
            times = row["milliseconds"]
            known = best.setdefault(row["contender"], times)
            best[row["contender"]] = list(map(min, known, times))
    rows = [
        [text, *(f"{value:.1f}" for value in best[name])]
        for name, text in LAYERS.items()
    ]
    return markdown(heads, rows)


def ratios(content):
    """Geometric means over the shapes, by mode."""
    modes = {"best": "faster mode", "xla": "XLA", "graph": "plain graph"}
    by_pair = {}
    for row in content["report"]["comparisons"]:
        pair = by_pair.setdefault((row["ours"], row["theirs"]), {})
        pair[row["mode"]] = f"{row['ratio']:.2f}"
    rows = [
        [
            LAYERS[ours],
            LAYERS[theirs],
            *(found.get(mode, "") for mode in modes),
        ]
        for (ours, theirs), found in by_pair.items()
    ]
    return markdown(["layer", "compared with", *modes.values()], rows, 2)


def memory(content):
    """Peak of temporary memory, in tensors of the input's size."""
    peaks = content["report"]["temporary_tensors"]
    rows = [
        [text, f"{peaks[name]:.2f}"]
        for name, text in LAYERS.items()
        if name in peaks
    ]
    return markdown(["layer", "tensors"], rows)


def backends(content, others):
    """Ratios of times on TensorFlow and on the other backends."""
    versions, cores = (content["environment"][k] for k in ("versions", "cores"))
    tensorflow = {
        "setup": f"TensorFlow {versions['tensorflow']}, {cores} cores",
        "mode": "faster mode",
        "ratios": {
            f"{row['ours']} | {row['theirs']}": row["ratio"]
            for row in content["report"]["comparisons"]
            if row["mode"] == "best"
        },
    }
    rows = []
    for row in (tensorflow, *others["rows"]):
        values = (row["ratios"].get(" | ".join(pair)) for pair in COMPARED)
        cells = ("" if value is None else f"{value:.2f}" for value in values)
        rows.append([f"{row['setup']}, {row['mode']}", *cells])
    return markdown(["", *COMPARED.values()], rows)


def steps(*contents):
    """Time of training steps relative to Keras' batch norm."""
    norms = [norm for norm in contents[0]["norms"] if norm != "keras_bn"]
    heads = ["", "Keras' BN", *(f"`{norm}`" for norm in norms)]
    rows = [row for content in contents for row in _steps(content, norms)]
    missed = [
        f"`{norm}` takes {row[heads.index(f'`{norm}`')]} in {row[0]}"
        for norm, goal in GOALS.items()
        for row in rows
        if float(row[heads.index(f"`{norm}`")]) > goal
    ]
    goals = " and ".join(f"{goal} for `{norm}`" for norm, goal in GOALS.items())
    return (
        f"{markdown(heads, rows)}\n\nGoals: at most {goals}. Missed: "
        f"{'; '.join(missed) or 'none'}."
    )


def _steps(content, norms):
    milliseconds = {
        (row["norm"], row["xla"]): row["milliseconds"]
        for row in content["milliseconds"]
    }
    name = (
        f"{content['model']}, {content['image_size']} px, "
        f"batch {content['global_batch_size']}"
    )
    for xla in content["xla"]:
        base = milliseconds["keras_bn", xla]
        shares = [f"{milliseconds[norm, xla] / base:.2f}" for norm in norms]
        text = f"{name}, XLA" if xla else name
        yield [text, f"{base:,.0f} ms", *shares]


def inference(content):
    """Time of inference relative to Keras' batch norm."""
    contenders = list(dict.fromkeys(r["contender"] for r in content["rows"]))
    texts = [f"`{c}`" if c.islower() else c for c in contenders[1:]]
    engines = {"litert": "LiteRT", "predict": "`predict`"}
    times = {}
    for row in content["rows"]:
        key = (
            f"{row['network']}, {row['image_size']} px, "
            f"{engines[row['engine']]}, batch {row['batch_size']}"
        )
        times.setdefault(key, {})[row["contender"]] = row["milliseconds"]
    rows = []
    for key in sorted(times, key=lambda key: "predict" in key):
        base, *others = (times[key][c] for c in contenders)
        ratios = [f"{value / base:.2f}" for value in others]
        rows.append([key, f"{base:.1f} ms", *ratios])
    return markdown(["", "Keras' BN", *texts], rows)


def demos(content):
    """Demo commands with their accuracy and time."""
    rows = []
    for row in content["rows"]:
        minutes, seconds = divmod(round(row["seconds"]), 60)
        minutes = f"{minutes} min " if minutes else ""
        rows.append(
            [f"`{row['command']}`", row["outcome"], f"{minutes}{seconds} s"]
        )
    return markdown(["command", "test score", "time"], rows)


def restored(content):
    """Accuracy with statistics from several draws of training images."""
    texts = {"trained": "of training", "start": "start values"}
    rows = []
    for row in content["restored"]:
        prior = f", prior={row['prior']}" if row.get("prior") else ""
        text = texts.get(
            row["statistics"], f'`method="{row["statistics"]}"{prior}`'
        )
        accuracies = results.format_mean(row["accuracies"], factor=100)
        lowest = 100 * min(row["accuracies"])
        rows.append(
            [
                text,
                f"{row['images']:,}" if "images" in row else "",
                f"{accuracies}%",
                f"{lowest:.2f}%" if len(row["accuracies"]) > 1 else "",
            ]
        )
    heads = ["moving statistics", "images", "accuracy", "lowest"]
    return markdown(heads, rows)


def adapted(content):
    """Accuracy on corrupted images before and after adaptation."""
    pairs = [
        (number, prior)
        for number in content["num_images"]
        for prior in (0, content["prior"])
    ]
    heads = [
        "corruption",
        "before",
        *(
            f"{number} images" + (f", prior={prior}" if prior else "")
            for number, prior in pairs
        ),
    ]
    rows = [
        [
            row["corruption"],
            *(
                f"{100 * row[key]:.2f}%"
                for key in ("before", *(f"{n}/{p}" for n, p in pairs))
            ),
        ]
        for row in content["adapted"]
    ]
    return markdown(heads, rows)


def conversion(content):
    """Points of accuracy that a conversion loses, mean over the draws."""
    rows = content["rows"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    heads = ["lost points", *networks, "same class", "seconds"]
    teachers = {row["network"]: row["teacher"] for row in rows}
    lines = [
        [
            "accuracy of batch normalization",
            *(f"{100 * teachers[network]:.2f}%" for network in networks),
            "",
            "",
        ]
    ]
    for name in dict.fromkeys(row["conversion"] for row in rows):
        found = [row for row in rows if row["conversion"] == name]
        lost = []
        for network in networks:
            losses = [
                100 * (row["teacher"] - row["accuracy"])
                for row in found
                if row["network"] == network
            ]
            lost.append(f"{statistics.mean(losses):.2f}" if losses else "")
        first = [row for row in found if row["network"] == networks[0]]
        agreement = statistics.mean([row["agreement"] for row in first])
        seconds = statistics.mean([row["seconds"] for row in first])
        lines.append(
            [f"`{name}`", *lost, f"{100 * agreement:.1f}%", f"{seconds:.0f}"]
        )
    return markdown(heads, lines)


def markdown(heads, rows, num_text_columns=1):
    """A Markdown table with numbers aligned to the right."""
    num_numbers = len(heads) - num_text_columns
    rule = ["---"] * num_text_columns + ["---:"] * num_numbers
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *rows])


# For each table: its function, its JSON files, and the page that shows it.
TABLES = {
    "demos": (demos, ["demos"], "README.md"),
    "layers": (layers, ["layers"], "docs/speed.md"),
    "ratios": (ratios, ["layers"], "docs/speed.md"),
    "memory": (memory, ["layers"], "docs/speed.md"),
    "backends": (backends, ["layers", "backends"], "docs/speed.md"),
    "steps": (steps, ["steps_resnet50v2", "steps_resnet20"], "docs/speed.md"),
    "restored": (restored, ["recalibration"], "docs/recalibration.md"),
    "adapted": (adapted, ["recalibration"], "docs/recalibration.md"),
    "conversion": (conversion, ["conversion"], "docs/calibration.md"),
    "inference": (inference, ["inference"], "docs/folding.md"),
    "replicas": (replicas, ["replicas"], "docs/replicas.md"),
}


def render(name):
    """Returns the table of this name as Markdown."""
    function, files, _ = TABLES[name]
    return function(
        *(json.loads((MEASURED / f"{f}.json").read_text()) for f in files)
    )


def main():
    for page in sorted({page for _, _, page in TABLES.values()}):
        path = ROOT / page
        text = MARKED.sub(
            lambda found: found[1] + render(found[2]) + "\n<!-- end -->",
            path.read_text(),
        )
        atomic_io.write_text(path, text)


if __name__ == "__main__":
    main()
