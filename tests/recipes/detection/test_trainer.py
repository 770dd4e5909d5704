"""Tests of a detector's training step on several replicas and in NumPy."""

import functools
import json

import keras
import numpy as np
import pytest

import keras_norm
from recipes.data import input_pipeline
from recipes.detection import retinanet
from recipes.detection.label_encoder import BACKGROUND
from recipes.errors import RecipeError
from recipes.training import distribution
from recipes.training import runner
from recipes.training.compiled_steps import CompiledSteps
from tests.recipes.detection import small_detector


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_detector.folder(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifiers")
    return {
        norm: small_detector.classifier(root / f"{norm}.keras", norm)
        for norm in ("frn", "sync_bn", "bn")
    }


def made(dataset, classifiers, num_replicas=1, norm="frn", **flags):
    config = small_detector.make_config(
        dataset=dataset,
        norm=norm,
        init_model=classifiers[norm],
        num_replicas=num_replicas,
        virtual_replicas=4,
        **flags,
    )
    replicas = distribution.make_strategy(config)
    batches = input_pipeline.make_data(config, small_detector.TASK)
    trainer = runner.build_trainer(
        config, small_detector.TASK, batches, replicas
    )
    return CompiledSteps(trainer, batches, replicas)


def trained(steps, num_steps=3):
    batches = steps.training_batches(0)
    rows = [steps.train(batches, 1)[0] for _ in range(num_steps)]
    return [{k: float(v) for k, v in row.items()} for row in rows]


DECAYED = {"weight_decay": 0.01, "clip_global_norm": 10.0}


@pytest.fixture(scope="module")
def alone(dataset, classifiers):
    """Returns `f(norm)`: the steps of one device and their metrics."""

    @functools.cache
    def run_steps(norm):
        steps = made(dataset, classifiers, norm=norm, **DECAYED)
        return steps, trained(steps, 2)

    return run_steps


@pytest.mark.parametrize(
    ("norm", "flags"),
    [
        ("frn", {"num_replicas": 2, "grad_accum_steps": 2}),
        ("frn", {"xla": True}),
        pytest.param("frn", {"num_replicas": 2}, marks=pytest.mark.long),
        pytest.param("frn", {"num_replicas": 4}, marks=pytest.mark.long),
        pytest.param("sync_bn", {"num_replicas": 2}, marks=pytest.mark.long),
    ],
)
def test_step_does_not_depend_on_replicas_or_microbatches(
    dataset, classifiers, alone, norm, flags
):
    expected, expected_rows = alone(norm)
    steps = made(dataset, classifiers, norm=norm, **DECAYED, **flags)
    (_, targets, _) = next(iter(steps.data.train(0)))
    num_shares = flags.get("num_replicas", 2)
    shares = np.split(targets["classes"].numpy() >= 0, num_shares)
    assert len({share.sum() for share in shares}) > 1
    for ours, theirs in zip(trained(steps, 2), expected_rows, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5)
    for ours, theirs in zip(
        steps.trainer.model.weights,
        expected.trainer.model.weights,
        strict=True,
    ):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), atol=2e-5, err_msg=ours.path
        )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_loss_matches_the_paper(dataset, classifiers):
    flags = {
        "focal_alpha": 0.3,
        "focal_gamma": 1.5,
        "huber_delta": 0.2,
        "box_loss_weight": 7.0,
        "weight_decay": 0.0,
    }
    steps = made(dataset, classifiers, **flags)
    images, targets, weights = next(iter(steps.data.train(0)))
    assert weights.numpy().all()
    outputs = steps.trainer.model(images, training=True)
    logits, deltas = (
        np.asarray(outputs[name], "float64") for name in ("classes", "boxes")
    )
    classes = targets["classes"].numpy()
    counts = classes >= BACKGROUND
    p = sigmoid(logits)
    one_hot = classes[..., None] == np.arange(3)
    per_class = np.where(
        one_hot,
        -0.3 * (1 - p) ** 1.5 * np.log(p),
        -0.7 * p**1.5 * np.log(1 - p),
    )
    positives = (classes >= 0).sum()
    class_loss = (per_class * counts[..., None]).sum() / positives
    error = np.abs(deltas - targets["deltas"].numpy())[classes >= 0]
    huber = np.where(error <= 0.2, error**2 / 2, 0.2 * (error - 0.1))
    box_loss = 7.0 * huber.sum() / (4 * positives)
    (row,) = trained(steps, 1)
    assert row["class_loss"] == pytest.approx(class_loss, rel=1e-5)
    assert row["box_loss"] == pytest.approx(box_loss, rel=1e-5)
    assert row["loss"] == pytest.approx(class_loss + box_loss, rel=1e-5)
    assert row["positives"] == pytest.approx(positives / 8, rel=1e-6)
    # Crowds give ignored anchors; most anchors are background.
    assert 0 < (~counts).sum() < counts.sum()


def test_padding_does_not_count(dataset, classifiers):
    """The second batch has four of twelve images, and four of weight 0."""
    flags = {"drop_remainder": False, "weight_decay": 0.0}
    steps = made(dataset, classifiers, 2, **flags)
    _, (_, _, weights) = list(steps.data.train(0).take(2))
    assert weights.numpy().sum() == 4
    rows = trained(steps, 2)
    single = trained(made(dataset, classifiers, 1, **flags), 2)
    for ours, theirs in zip(rows, single, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5)


def test_batch_without_boxes_trains(tmp_path, classifiers):
    root = tmp_path / "drawn"
    dataset = small_detector.folder(root)
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    # The first one is a crowd, which is not a target.
    content["annotations"] = content["annotations"][:2]
    path.write_text(json.dumps(content))
    rows = trained(made(dataset, classifiers, global_batch_size=2), 3)
    empty = [row for row in rows if row["positives"] == 0]
    assert len(empty) >= 2
    for row in empty:
        assert row["box_loss"] == 0 and 0 < row["class_loss"] < np.inf


@pytest.fixture(scope="module")
def model_file(dataset, classifiers, tmp_path_factory):
    """Saves a detector with batch norm that was trained for a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    small_detector.run(
        folder,
        dataset=dataset,
        norm="bn",
        init_model=classifiers["bn"],
        head_depth=1,
        train_steps=4,
        mode="train",
    )
    return str(folder / "model.keras")


def outputs(model, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    found = model(images, training=False)
    return {k: keras.ops.convert_to_numpy(v) for k, v in found.items()}


def test_saved_detector_loads_bit_for_bit(model_file, tmp_path):
    model = keras.saving.load_model(model_file)
    expected = outputs(model)
    assert {k: v.shape[0] for k, v in expected.items()} == {
        "classes": 3,
        "boxes": 3,
    }
    model.save(tmp_path / "again.keras")
    again = outputs(keras.saving.load_model(tmp_path / "again.keras"))
    for name, values in expected.items():
        np.testing.assert_array_equal(again[name], values)


def test_conversion_to_rbn_is_numerically_equivalent(model_file):
    model = keras.saving.load_model(model_file)
    converted, report = keras_norm.convert(model, "rbn", verify=True)
    assert report.function == "rounding"
    found, expected = outputs(converted), outputs(model)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
    kinds = {type(layer).__name__ for layer in converted.layers}
    assert "RBN" in kinds and "BatchNormalization" not in kinds


def test_conversion_to_frn_removes_all_batch_norms(model_file, tmp_path):
    model = keras.saving.load_model(model_file)
    before = [type(layer).__name__ for layer in model.layers]
    converted, report = keras_norm.convert(model, "frn")
    after = [type(layer).__name__ for layer in converted.layers]
    count = before.count("BatchNormalization")
    # Backbone 4, pyramid 3 + 3, two heads with one convolution on 3 levels.
    assert count == 4 + 3 + 3 + 2 * 3
    assert after.count("FRN") == count == len(report.replaced)
    assert "BatchNormalization" not in after and "ReLU" not in after
    assert after.count("TLU") == before.count("ReLU")
    converted.save(tmp_path / "frn.keras")
    again = outputs(keras.saving.load_model(tmp_path / "frn.keras"))
    for name, values in outputs(converted).items():
        np.testing.assert_array_equal(again[name], values)


def test_detector_can_be_converted_and_trained_further(
    model_file, dataset, tmp_path
):
    flags = {"dataset": dataset, "init_model": model_file, "mode": "train"}
    summary = small_detector.run(
        tmp_path, convert_to="frn", train_steps=1, **flags
    )
    assert np.isfinite(summary["last"]["train/loss"])
    model = keras.saving.load_model(tmp_path / "model.keras")
    kinds = {type(layer).__name__ for layer in model.layers}
    assert "FRN" in kinds and "BatchNormalization" not in kinds


def test_detector_with_another_anchor_size_is_rejected(
    model_file, dataset, tmp_path
):
    # The number of anchors is equal, but the boxes would be wrong.
    flags = {"dataset": dataset, "init_model": model_file}
    with pytest.raises(RecipeError, match=r"anchors4\.0_.*of size 2\.0 on"):
        small_detector.run(tmp_path, anchor_size=2.0, **flags)
    model = keras.saving.load_model(model_file)
    config = small_detector.make_config(dataset=dataset)
    others = small_detector.make_config(dataset=dataset, anchor_size=2.0)
    assert retinanet.has_anchors(model, config.anchors)
    assert not retinanet.has_anchors(model, others.anchors)
    # Other names do not contain the anchors.
    model.name = "renamed"
    assert retinanet.has_anchors(model, others.anchors)


def test_classifier_becomes_the_backbone(dataset, classifiers):
    model = made(dataset, classifiers, norm="bn").trainer.model
    theirs = keras.saving.load_model(classifiers["bn"])
    for layer in theirs.layers[1:-2]:
        ours = model.get_layer(layer.name)
        for weight, expected in zip(ours.weights, layer.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
    assert model.inputs[0].shape == (None, 64, 64, 3)
