"""An evaluation of a classifier by class: right, confused, and how sure."""

import json

import numpy as np

from recipes import atomic_io

# Of the newest evaluation.
FILE = "evaluation.json"
# With more classes the matrix would be too large to look at.
MAX_CONFUSION = 50
NUM_MISTAKES = 24


def compute_class_metrics(rows, class_names, name):
    """Counts of an evaluation by class.

    Args:
        rows: Array `(n, 4)`: label, predicted label, its probability and
            weight of every example in order, fill-up rows included.
        class_names: The name of each label.
        name: `f(index)` tells where an example is.

    Returns:
        A dict that JSON can hold. `num_examples`, `accuracy` (None without an
        example) and `num_predicted` have a number for each class; `confusion`
        has a row of counts for each label, a column for each predicted label,
        and is None for more than `MAX_CONFUSION` classes; `mistakes` are the
        wrong predictions of the highest probability, the surest first.
    """
    num_classes = len(class_names)
    (indices,) = np.nonzero(rows[:, 3] > 0)
    labels, predicted = rows[indices, :2].astype(np.int64).T
    is_right = labels == predicted
    examples = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[is_right], minlength=num_classes)
    confusion = None
    if num_classes <= MAX_CONFUSION:
        cells = np.bincount(
            labels * num_classes + predicted, minlength=num_classes**2
        )
        confusion = cells.reshape(num_classes, num_classes).tolist()
    (wrong,) = np.nonzero(~is_right)
    scores = rows[indices, 2].astype(np.float64)
    # In the order of the examples where scores are equal.
    wrong = wrong[np.argsort(-scores[wrong], kind="stable")][:NUM_MISTAKES]
    return {
        "class_names": list(class_names),
        "num_examples": examples.tolist(),
        "num_predicted": np.bincount(predicted, minlength=num_classes).tolist(),
        "accuracy": [
            round(hit / number, 6) if number else None
            for hit, number in zip(
                hits.tolist(), examples.tolist(), strict=True
            )
        ],
        "confusion": confusion,
        "mistakes": [
            {
                "index": int(indices[i]),
                "image": name(int(indices[i])),
                "label": class_names[labels[i]],
                "predicted": class_names[predicted[i]],
                "score": round(float(scores[i]), 6),
            }
            for i in wrong
        ],
    }


def write_class_metrics(folder, counted):
    """Writes evaluation.json to a workdir."""
    atomic_io.write_text(folder / FILE, json.dumps(counted, indent=1) + "\n")


def read_class_metrics(folder):
    """What evaluation.json of a workdir holds, or None."""
    path = folder / FILE
    return json.loads(path.read_bytes()) if path.exists() else None
