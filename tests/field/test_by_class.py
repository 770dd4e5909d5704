"""Per-class accuracy, confusion matrix and mistakes of an evaluation."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import sklearn.metrics  # noqa: E402

from recipes.classification import class_metrics  # noqa: E402
from recipes.classification import evaluation_report  # noqa: E402
from recipes.data import dataset_summary  # noqa: E402
from recipes.data import input_pipeline  # noqa: E402
from tests.recipes.small_runs import TASK  # noqa: E402
from tests.recipes.small_runs import make_config  # noqa: E402


@pytest.mark.parametrize("num_classes", [3, 50, 51])
def test_class_metrics_equal_scikit_learn(num_classes):
    generator = np.random.default_rng(num_classes)
    # The last class has no examples; examples of weight 0 are ignored.
    labels = generator.integers(0, num_classes - 1, 400)
    predicted = np.where(
        generator.random(400) < 0.6,
        labels,
        generator.integers(0, num_classes, 400),
    )
    scores = generator.random(400).astype(np.float32)
    weights = (generator.random(400) < 0.9).astype(np.float32)
    predictions = np.stack([labels, predicted, scores, weights], -1)
    names = [f"class {i}" for i in range(num_classes)]
    metrics = class_metrics.compute_class_metrics(
        predictions.astype(np.float32), names, "example {}".format
    )
    kept = weights > 0
    matrix = sklearn.metrics.confusion_matrix(
        labels[kept], predicted[kept], labels=range(num_classes)
    )
    expected = matrix.tolist() if num_classes <= 50 else None
    assert metrics["confusion"] == expected
    assert metrics["num_examples"] == matrix.sum(axis=1).tolist()
    assert metrics["num_predicted"] == matrix.sum(axis=0).tolist()
    assert metrics["accuracy"][-1] is None
    np.testing.assert_allclose(
        metrics["accuracy"][:-1],
        (matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1))[:-1],
        atol=1e-6,
    )
    wrong = [i for i in range(400) if kept[i] and labels[i] != predicted[i]]
    wrong.sort(key=lambda i: -scores[i])
    assert [m["index"] for m in metrics["mistakes"]] == wrong[:24]
    first = metrics["mistakes"][0]
    assert first["image"] == f"example {wrong[0]}"
    assert first["label"] == names[labels[wrong[0]]]
    assert first["predicted"] == names[predicted[wrong[0]]]


def test_tied_scores_keep_the_order_of_examples():
    predictions = np.array([[0, 1, 0.5, 1]] * 30, np.float32)
    metrics = class_metrics.compute_class_metrics(predictions, ["a", "b"], str)
    assert [m["index"] for m in metrics["mistakes"]] == list(range(24))
    metrics = class_metrics.compute_class_metrics(
        predictions * [1, 1, 1, 0], ["a", "b"], str
    )
    assert metrics["accuracy"] == [None, None] and not metrics["mistakes"]


def test_report_shows_class_names(tmp_path):
    config = make_config(workdir=str(tmp_path))
    made = input_pipeline.make_data(config, TASK)
    names = made.source.class_names
    assert names == tuple("0123456789")
    predictions = np.array([[0, 1, 0.5, 1], [1, 1, 0.7, 1]], np.float32)
    metrics = class_metrics.compute_class_metrics(
        predictions, names, made.source.evaluation.name
    )
    class_metrics.write_class_metrics(tmp_path, metrics)
    page = evaluation_report.render_evaluation(config, made)
    assert page.count("<figure") == 1 and "<b>1</b> 50%<br>is 0" in page
    assert "0, predicted as 1: 1" in page


def test_summary_of_every_dataset_is_one_line():
    line = dataset_summary.describe_data(
        input_pipeline.make_data(make_config(), TASK)
    )
    assert line == (
        "1,437 training and 360 evaluation images, 10 classes "
        "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"
    )
    made = input_pipeline.make_data(make_config(dataset="fake"), TASK)
    assert dataset_summary.describe_data(made).endswith(
        "1,000 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 990 more)"
    )
