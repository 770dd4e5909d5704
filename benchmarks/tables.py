"""Tables of the pages, out of the JSON files that the benchmarks wrote.

A table stands between `<!-- table NAME -->` and `<!-- end -->`, its values in
docs/measured/. `make measure` measures all of them again.

  python benchmarks/tables.py
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from recipes import atomic_io  # noqa: E402
from recipes.experiments import aggregate  # noqa: E402

MEASURED = ROOT / "docs/measured"
PAGE = ROOT / "README.md"
MARKED = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)
# The share of the step with Keras' batch norm that a norm may take.
GOALS = {"frn": 1.0, "rbn": 1.05}
# Rows of the table of layers: text and contender.
LAYERS = {
    '`FRN(activation="tlu")`': "FRN(activation=tlu)",
    "`FRN`, `TLU`": "FRN, TLU",
    "FRN, TLU as usually written": "textbook FRN, TLU",
    "Keras' BN, ReLU": "Keras BN, ReLU",
    "Keras' GN, ReLU": "Keras GN, ReLU",
    "oneDNN's fused BN, ReLU": "fused BN, ReLU",
    "`RBN`": "RBN",
    "RBN in the order of its formulas": "RBN by formula",
    "`BatchNormalization`": "BN",
    "Keras' BN": "Keras BN",
    "the limit: 2.5 copies": "limit",
}


def replicas(content):
    """Loss and accuracy before and after a save, means over the seeds."""
    heads = ["layer", "loss", "after reload", "accuracy", "after reload"]
    by_layer = {}
    for row in content["rows"]:
        by_layer.setdefault(row["layer"], []).append(row)
    rows = []
    for layer, runs in by_layer.items():
        cells = [
            aggregate.spread(run[when][name] for run in runs).text(
                digits, factor
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
    """Milliseconds of each contender in its better mode, by shape."""
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
        for text, name in LAYERS.items()
    ]
    return f"{markdown(heads, rows)}\n\n{_ratios(content['report'])}"


def _ratios(report):
    """The geometric means over the shapes, and the memory, in words."""
    ratios = {
        (row["ours"], row["theirs"], row["mode"]): f"{row['ratio']:.2f}"
        for row in report["comparisons"]
    }
    memory = report["temporary_tensors"]
    frn, keras_bn = "FRN(activation=tlu)", "Keras BN, ReLU"
    textbook = [memory["textbook FRN, TLU"], memory["RBN by formula"]]
    return (
        'Geometric means of the five ratios: `FRN(activation="tlu")` takes '
        f"{ratios[frn, keras_bn, 'best']} of Keras' BN + ReLU "
        f"({ratios[frn, keras_bn, 'xla']} where both are compiled, "
        f"{ratios[frn, keras_bn, 'graph']} where neither is), "
        f"{ratios[frn, 'textbook FRN, TLU', 'best']} of FRN + TLU as usually "
        f"written, {ratios[frn, 'fused BN, ReLU', 'best']} of oneDNN's "
        f"hand-written BN + ReLU and {ratios[frn, 'limit', 'best']} of the "
        f"bandwidth limit; RBN takes {ratios['RBN', 'Keras BN', 'best']} of "
        f"Keras' BN and {ratios['RBN', 'RBN by formula', 'best']} of RBN in "
        "the order of its formulas. Under XLA the peak of temporary memory is "
        f"at most {memory[frn]:.2f} (FRN + TLU) and {memory['RBN']:.2f} (RBN) "
        f"tensors of the input's size, against {memory[keras_bn]:.2f} for "
        f"Keras' BN + ReLU and up to {max(textbook):.2f} for the textbook "
        "forms."
    )


def steps(*contents):
    """Training steps as a share of the step with Keras' batch norm."""
    norms = [norm for norm in contents[0]["norms"] if norm != "keras_bn"]
    heads = ["", "Keras' BN", *(f"`{norm}`" for norm in norms)]
    rows = [row for content in contents for row in _steps(content, norms)]
    missed = [
        f"`{norm}` takes {row[heads.index(f'`{norm}`')]} in {row[0]}"
        for norm, goal in GOALS.items()
        for row in rows
        if float(row[heads.index(f"`{norm}`")]) > goal
    ]
    goals = ", ".join(f"{goal} for `{norm}`" for norm, goal in GOALS.items())
    return (
        f"{markdown(heads, rows)}\n\nGoals, at most: {goals}. Missed: "
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


def demos(content):
    """Commands for a first try, what they came to and how long they took."""
    rows = []
    for row in content["rows"]:
        minutes, seconds = divmod(round(row["seconds"]), 60)
        minutes = f"{minutes} min " if minutes else ""
        rows.append(
            [f"`{row['command']}`", row["outcome"], f"{minutes}{seconds} s"]
        )
    return markdown(["command", "held out", "time"], rows)


def markdown(heads, rows):
    """A table of Markdown, numbers to the right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *rows])


# The function that makes a table, and the files that it is made of.
TABLES = {
    "replicas": (replicas, ["replicas"]),
    "layers": (layers, ["layers"]),
    "steps": (steps, ["steps_resnet50v2", "steps_resnet20"]),
    "demos": (demos, ["demos"]),
}


def render(name):
    """The table of this name as its results have it."""
    function, files = TABLES[name]
    return function(
        *(json.loads((MEASURED / f"{f}.json").read_text()) for f in files)
    )


def main():
    text = MARKED.sub(
        lambda found: found[1] + render(found[2]) + found[4], PAGE.read_text()
    )
    atomic_io.write_text(PAGE, text)


if __name__ == "__main__":
    main()
