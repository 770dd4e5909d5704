import json
import math

from recipes.run_dir.metrics_log import MetricsLog


def test_entries_after_the_last_checkpoint_are_dropped(tmp_path):
    records = MetricsLog(tmp_path, "accuracy", last_step=0)
    for step in (1, 2, 3):
        records.add(step, step / 2, {"train/loss": 1.0 / step})
    with records.path.open("a") as file:
        file.write('{"step": 4, "train/lo')  # Torn off by a kill.
    again = MetricsLog(tmp_path, "accuracy", last_step=2)
    assert again.series("train/loss") == ([1, 2], [1.0, 0.5])
    again.add(3, 1.5, {"train/loss": 9.0})
    lines = again.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_best_is_the_entry_of_the_best_evaluation(tmp_path):
    records = MetricsLog(tmp_path, "accuracy", last_step=0)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7)):
        records.add(step, step, {"eval/accuracy": accuracy, "eval/loss": 1.0})
    summary = records.summarize({"seconds": 2.0})
    assert summary["best"]["step"] == 2
    assert summary["last"]["eval/accuracy"] == 0.7
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert kept == summary
    by_loss = MetricsLog(tmp_path, "loss")
    by_loss.add(4, 4, {"eval/accuracy": 0.1, "eval/loss": 0.2})
    assert by_loss.best()["step"] == 4
    assert records.summarize({})["seconds"] == 2.0


def test_values_that_are_not_finite_become_null(tmp_path):
    records = MetricsLog(tmp_path, "accuracy", last_step=0)
    records.add(1, 1, {"eval/loss": math.inf, "eval/accuracy": 0.1})
    row = json.loads(records.path.read_text())
    assert row["eval/loss"] is None
    assert records.series("eval/loss") == ([], [])
    assert records.best()["eval/accuracy"] == 0.1
