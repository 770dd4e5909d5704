"""Per-class accuracy, confusion matrix and worst mistakes of an evaluation."""

import json

import numpy as np

from recipes import atomic_io

# Metrics of the newest evaluation.
FILE = "evaluation.json"
# Largest number of classes for a readable confusion matrix.
MAX_CONFUSION = 50
NUM_MISTAKES = 24


def compute_class_metrics(predictions, class_names, name):
    """Computes the metrics of each class from all predictions.

    Args:
        predictions: Array `(n, 4)` with the label, predicted label, its
            probability and the weight of every example in order, including
            padding of weight 0.
        class_names: Name of each label.
        name: `f(index)` describes an example.

    Returns:
        A dict that JSON can represent. `num_examples`, `accuracy` (None
        for a class without examples) and `num_predicted` have an entry per
        class. `confusion` has a row of counts per label and a column per
        predicted label; it is None for more than `MAX_CONFUSION` classes.
        `mistakes` are the wrong predictions with the highest probabilities in
        descending order.
    """
    num_classes = len(class_names)
    (indices,) = np.nonzero(predictions[:, 3] > 0)
    labels, predicted = predictions[indices, :2].astype(np.int64).T
    is_correct = labels == predicted
    examples = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[is_correct], minlength=num_classes)
    confusion = None
    if num_classes <= MAX_CONFUSION:
        cells = np.bincount(
            labels * num_classes + predicted, minlength=num_classes**2
        )
        confusion = cells.reshape(num_classes, num_classes).tolist()
    (wrong,) = np.nonzero(~is_correct)
    scores = predictions[indices, 2].astype(np.float64)
    # Equal scores keep the order of the examples.
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


def write_class_metrics(folder, metrics):
    """Writes evaluation.json to a workdir."""
    atomic_io.write_text(folder / FILE, json.dumps(metrics, indent=1) + "\n")


def read_class_metrics(folder):
    """Reads evaluation.json of a workdir; None if it does not exist."""
    path = folder / FILE
    return json.loads(path.read_bytes()) if path.exists() else None
