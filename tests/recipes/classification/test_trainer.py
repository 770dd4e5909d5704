"""Training and evaluation of classifiers on one and several replicas."""

import keras
import numpy as np
import pytest

from recipes.data import input_pipeline
from recipes.training import distribution
from recipes.training import runner
from recipes.training.compiled_steps import CompiledSteps
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config


def train(num_replicas, num_steps=3, **flags):
    """Trains and returns the `Steps` and the metrics of each step."""
    config = make_config(
        **{
            "global_batch_size": 32,
            "virtual_replicas": num_replicas,
            "train_steps": num_steps,
            **flags,
        }
    )
    replicas = distribution.make_strategy(config)
    assert replicas.num_replicas_in_sync == num_replicas
    made = input_pipeline.make_data(config, TASK)
    trainer = runner.build_trainer(config, TASK, made, replicas)
    steps = CompiledSteps(trainer, made, replicas)
    batches = steps.training_batches(0)
    rows = [steps.train(batches, 1)[0] for _ in range(num_steps)]
    return steps, [{k: float(v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("norm", "num_replicas"), [("frn", 2), ("sync_bn", 2), ("frn", 4)]
)
def test_replicas_equal_one_device(norm, num_replicas):
    flags = {
        "norm": norm,
        "label_smoothing": 0.1,
        "weight_decay": 0.01,
        "clip_global_norm": 1.0,
    }
    expected, expected_rows = train(1, **flags)
    steps, rows = train(num_replicas, **flags)
    for ours, theirs in zip(rows, expected_rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(
        steps.trainer.model.weights,
        expected.trainer.model.weights,
        strict=True,
    ):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), atol=1e-5, err_msg=ours.path
        )
    values, single = steps.evaluate(), expected.evaluate()
    assert values["examples"] == single["examples"] == 360
    assert values["accuracy"] == pytest.approx(single["accuracy"], abs=1e-6)
    assert values["loss"] == pytest.approx(single["loss"], rel=1e-5)


def test_padded_batch_is_averaged_over_its_images():
    # The last batch of the epoch, the 23rd, has 29 images on one replica of
    # two, and none on the other.
    flags = {
        "drop_remainder": False,
        "global_batch_size": 64,
        "num_steps": 24,
        "weight_decay": 0.01,
    }
    _, expected = train(1, **flags)
    _, rows = train(2, **flags)
    for ours, theirs in zip(rows, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_evaluation_is_the_mean_over_all_examples():
    steps, _ = train(2, global_batch_size=50)
    values = steps.evaluate()
    unpadded = [
        (image, label)
        for image, label, weight in steps.data.evaluation().unbatch()
        if weight
    ]
    images, labels = map(np.stack, zip(*unpadded, strict=True))
    logits = steps.trainer.model.predict(images, verbose=0)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    hits = logits.argmax(-1) == labels
    order = np.argsort(-logits, axis=-1)[:, :5]
    assert values["examples"] == 360
    assert values["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert values["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
    assert values["top5_accuracy"] == pytest.approx(
        (order == labels[:, None]).any(-1).mean(), abs=1e-6
    )


def test_equal_logits_are_not_correct_for_every_label():
    steps, _ = train(1, num_steps=1)
    logits = steps.trainer.model.get_layer("logits")
    logits.set_weights([np.zeros(w.shape) for w in logits.weights])
    assert steps.evaluate()["accuracy"] < 0.2


@pytest.mark.parametrize("norm", ["frn", "rbn"])
@pytest.mark.parametrize("norm_weight_decay", [False, True])
def test_weight_decay_excludes_norms_by_default(norm, norm_weight_decay):
    config = make_config(
        norm=norm,
        weight_decay=1.0,
        norm_weight_decay=norm_weight_decay,
        virtual_replicas=None,
    )
    replicas = distribution.make_strategy(config)
    trainer = runner.build_trainer(
        config, TASK, input_pipeline.make_data(config, TASK), replicas
    )
    for weight in trainer.model.trainable_variables:
        weight.assign(np.full(weight.shape, 2.0))
    squares = {
        weight.path: 2.0 * np.prod(weight.shape)
        for weight in trainer.model.trainable_variables
        if norm_weight_decay or weight.name in ("kernel", "bias")
    }
    names = {w.name for w in trainer.model.trainable_variables}
    assert {"kernel", "gamma", "beta"} < names
    penalty = float(trainer.penalty())
    assert penalty == pytest.approx(sum(squares.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "norm"), [("mixed_float16", "frn"), ("mixed_bfloat16", "rbn")]
)
def test_half_precision_trains(precision, norm):
    steps, rows = train(1, norm=norm, precision=precision)
    assert np.isfinite([row["loss"] for row in rows]).all()
    for weight in steps.trainer.model.weights:
        assert weight.dtype == "float32"
        assert np.isfinite(weight.numpy()).all()


def test_soft_labels_are_class_probabilities():
    steps, _ = train(1, num_steps=1, label_smoothing=0.1)
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]], "float32")
    labels = np.array([[0.6, 0.4, 0.0], [0.3, 0.3, 0.4]], "float32")
    values = steps.trainer.values(keras.ops.array(labels), logits)
    targets = 0.9 * labels + 0.1 / 3
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -(targets * np.log(shares)).sum(-1)
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-5)
    np.testing.assert_array_equal(values["accuracy"], [1.0, 1.0])
