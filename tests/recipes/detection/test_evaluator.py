"""Tests of decoding and NMS against NumPy, and of a whole evaluation."""

import json

import numpy as np
import pytest
import tensorflow as tf

from recipes.data import input_pipeline
from recipes.detection import coco_metric
from recipes.detection import decoder as detections_lib
from recipes.detection import label_encoder
from recipes.detection import preprocessing
from recipes.detection.anchors import Anchors
from recipes.detection.evaluator import DetectionEvaluator
from recipes.training import distribution
from recipes.training.compiled_steps import CompiledSteps
from tests import tfds_archives
from tests.recipes.detection import boxes_folder
from tests.recipes.detection import small_detector

SIZE = 64


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def overlap(a, b):
    """Computes the IoU of two boxes."""
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return height * width / max(sum(areas) - height * width, 1e-9)


def decoded(deltas, anchors):
    """Decodes and clips boxes in float64."""
    anchors, deltas = np.float64(anchors), np.float64(deltas)
    sides = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + sides / 2 + deltas[:, :2] * sides
    sides = sides * np.exp(np.minimum(deltas[:, 2:], np.log(1000 / 16)))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], 1)
    return np.clip(boxes, 0, SIZE)


def suppressed(boxes, scores, max_detections, least=0.05, most=0.5):
    """Applies greedy NMS per class and returns box, score and class."""
    found = []
    for label in range(scores.shape[1]):
        kept = []
        for i in np.argsort(-scores[:, label]):
            if scores[i, label] <= least or len(kept) == max_detections:
                break
            if all(overlap(boxes[i], boxes[j]) <= most for j in kept):
                kept.append(i)
        found += [(*boxes[i], scores[i, label], label) for i in kept]
    return np.array(sorted(found, key=lambda row: -row[4])[:max_detections])


def layer(anchors, max_detections=100):
    return detections_lib.DetectionDecoder(
        anchors, SIZE, 0.05, 0.5, max_detections
    )


def rows(found, i):
    """Returns the layer's detections in the format of the oracle."""
    count = int(found["num_detections"][i])
    columns = [found["boxes"][i], found["scores"][i, :, None]]
    every = np.concatenate([*columns, found["classes"][i, :, None]], 1)
    # The padding is 0.
    assert not every[count:].any()
    return every[:count]


def random_outputs(num_anchors, num_classes, batch=2):
    generator = np.random.default_rng(5)
    logits = generator.normal(-3, 2, (batch, num_anchors, num_classes))
    deltas = generator.normal(0, 0.4, (batch, num_anchors, 4))
    return logits.astype("float32"), deltas.astype("float32")


@pytest.mark.parametrize("max_detections", [7, 100])
def test_decoding_and_nms_match_numpy(max_detections):
    anchors = Anchors(SIZE, 4, 5, 2.0).boxes
    logits, deltas = random_outputs(len(anchors), 3)
    found = layer(anchors, max_detections)({"classes": logits, "boxes": deltas})
    found = {k: v.numpy() for k, v in found.items()}
    assert found["boxes"].shape == (2, max_detections, 4)
    for i in range(2):
        boxes, scores = decoded(deltas[i], anchors), sigmoid(logits[i])
        expected = suppressed(boxes, scores, max_detections)
        candidates = (scores > 0.05).sum()
        assert max_detections == 7 or 20 < len(expected) < candidates / 2
        np.testing.assert_allclose(rows(found, i), expected, atol=2e-4)


def test_equal_boxes_of_two_classes_are_both_kept():
    anchors = np.array([[8, 8, 40, 40], [9, 8, 40, 40]], "float32")
    logits = np.array([[[2.0, 1.0, -9.0], [1.5, 3.0, -9.0]]], "float32")
    found = layer(anchors)(
        {"classes": logits, "boxes": np.zeros((1, 2, 4), "float32")}
    )
    found = {k: v.numpy() for k, v in found.items()}
    expected = [
        [9, 8, 40, 40, sigmoid(3), 1],
        [8, 8, 40, 40, sigmoid(2), 0],
    ]
    np.testing.assert_allclose(rows(found, 0), expected, rtol=1e-5)


def test_only_anchors_with_the_highest_scores_are_decoded():
    """Scores rise with the index of the anchor, and boxes do not overlap."""
    num_anchors = detections_lib.NUM_CANDIDATES + 1200
    cells = np.stack(np.divmod(np.arange(num_anchors), 80), 1) * 0.75
    anchors = np.concatenate([cells, cells + 0.5], 1).astype("float32")
    logits = np.full((2, num_anchors, 2), -20.0, "float32")
    logits[0, :, 1] = np.linspace(-1, 4, num_anchors)
    # In the second image, scores fall and belong to the other class.
    logits[1, :, 0] = np.linspace(4, -1, num_anchors)
    generator = np.random.default_rng(1)
    deltas = generator.uniform(-0.2, 0.2, (2, num_anchors, 4))
    deltas = deltas.astype("float32")
    found = layer(anchors, 20)({"classes": logits, "boxes": deltas})
    found = {k: v.numpy() for k, v in found.items()}
    best = np.arange(num_anchors)
    for i, chosen in enumerate((best[::-1][:20], best[:20])):
        boxes = decoded(deltas[i], anchors)[chosen]
        np.testing.assert_allclose(rows(found, i)[:, :4], boxes, atol=1e-3)
        assert (rows(found, i)[:, 5] == 1 - i).all()


# Different aspect ratios; one wider than the input of the network, one smaller.
SIZES = [(40, 90), (100, 30), (64, 64), (23, 37), (51, 50)]


def unequal(root):
    """Writes a folder of such images with three categories and a crowd."""
    generator = np.random.default_rng(3)
    images, boxes = [], []
    for number, (height, width) in enumerate(SIZES, start=11):
        images.append(
            {
                "id": number,
                "file_name": f"{number}.jpg",
                "height": height,
                "width": width,
            }
        )
        for k in range(3):
            high, wide = height * (0.3 + 0.1 * k), width * (0.5 - 0.1 * k)
            y, x = generator.uniform(0, [height - high, width - wide])
            is_crowd = int(k == 1 and number == 13)
            boxes.append(
                boxes_folder.box(
                    len(boxes) + 1,
                    number,
                    [x, y, wide, high],
                    (7, 3, 5)[k],
                    iscrowd=is_crowd,
                )
            )
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": i, "name": f"kind {i}"} for i in (7, 3, 5)],
    }
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for number, size in enumerate(SIZES, start=11):
            encoded = tfds_archives.jpeg(1, number, *size)
            (root / split / f"{number}.jpg").write_bytes(encoded)
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return f"folder:{root}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return unequal(tmp_path_factory.mktemp("unequal"))


class Perfect:
    """Trainer whose outputs equal the targets of every evaluation image.

    Args:
        config: A `DetectionConfig`.
        made: The `Data` of the run.
    """

    def __init__(self, config, made):
        self.config, self.data, self.model = config, made, self._call
        self.images, logits, deltas = [], [], []
        example = preprocessing.evaluation_preprocessing(config)
        for i, annotation in enumerate(made.source.evaluation.annotations()):
            encoded = made.source.evaluation.read(i)["image"]
            image, boxes, keep = example(
                tf.io.decode_image(encoded, 3), annotation.boxes, None
            )
            assert keep.numpy().all()
            classes, to_boxes = label_encoder.assign_targets(
                boxes,
                annotation.labels,
                annotation.is_crowd,
                tf.constant(config.anchors.boxes),
            )
            own = tf.one_hot(classes, made.num_classes)
            logits.append(20.0 * own - 10.0)
            deltas.append(to_boxes)
            self.images.append(image)
        self.images = tf.stack(self.images)
        self.outputs = {"classes": tf.stack(logits), "boxes": tf.stack(deltas)}

    def inference_weights(self):
        import contextlib

        return contextlib.nullcontext()

    def make_evaluator(self, steps):
        return DetectionEvaluator(self, steps)

    def _call(self, images, training):
        """Returns the outputs for images that it identifies by their pixels."""
        differences = images[:, None] - self.images
        squares = tf.reduce_sum(differences**2, axis=(2, 3, 4))
        which = tf.argmin(squares, axis=1)
        return {k: tf.gather(v, which) for k, v in self.outputs.items()}


def evaluated(dataset, folder, num_replicas=1, **flags):
    """Evaluates `Perfect` and returns the metrics and the config."""
    config = small_detector.make_config(
        dataset=dataset,
        workdir=str(folder),
        num_replicas=num_replicas,
        virtual_replicas=4,
        **{"global_batch_size": 4, "anchor_size": 2.0, **flags},
    )
    folder.mkdir(exist_ok=True)
    made = input_pipeline.make_data(config, small_detector.TASK)
    steps = CompiledSteps(
        Perfect(config, made), made, distribution.make_strategy(config)
    )
    return steps.evaluate(), steps


@pytest.mark.parametrize(
    ("num_replicas", "eval_batch_size"), [(1, 2), (2, 4), (4, 8)]
)
def test_perfect_outputs_give_ap_1(
    dataset, tmp_path, num_replicas, eval_batch_size
):
    values, steps = evaluated(
        dataset, tmp_path, num_replicas, eval_batch_size=eval_batch_size
    )
    assert values["examples"] == len(SIZES)
    assert values["AP"] == pytest.approx(1.0, abs=1e-9)
    assert values["AR100"] == pytest.approx(1.0, abs=1e-9)
    found = json.loads((tmp_path / "predictions.json").read_text())
    annotations = steps.data.source.evaluation.annotations()
    # Every box except the crowd once, in the pixels of its original image.
    expected = sorted(
        (a.image_id, (3, 5, 7)[label], *box)
        for a in annotations
        for box, label, is_crowd in zip(
            a.boxes, a.labels, a.is_crowd, strict=True
        )
        if not is_crowd
    )
    ours = sorted(
        (row["image_id"], row["category_id"], y, x, y + h, x + w)
        for row in found
        for x, y, w, h in [row["bbox"]]
    )
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    classes = json.loads((tmp_path / "per_class.json").read_text())
    assert classes == {f"kind {i}": pytest.approx(1.0) for i in (3, 5, 7)}


def test_training_images_can_be_evaluated_as_well(dataset, tmp_path):
    values, _ = evaluated(dataset, tmp_path, 2, eval_train=True)
    assert values["training_AP"] == pytest.approx(1.0, abs=1e-9)
    train, evaluation = (
        json.loads((tmp_path / name).read_text())
        for name in ("training_predictions.json", "predictions.json")
    )
    assert train == evaluation and len(train) == 3 * len(SIZES) - 1


def test_max_detections_limits_the_recall(dataset, tmp_path):
    one, _ = evaluated(dataset, tmp_path, max_detections=1)
    # 14 objects on 5 images.
    assert one["AR1"] == one["AR100"] < 0.7
    assert 0 < one["AP"] < 0.7


def test_no_detections_give_0_and_classes_without_boxes_null(dataset, tmp_path):
    values, _ = evaluated(dataset, tmp_path, score_threshold=1.0)
    assert values["AP"] == 0.0
    assert json.loads((tmp_path / "predictions.json").read_text()) == []


def test_class_without_annotations_has_no_ap(tmp_path):
    dataset = unequal(tmp_path / "set")
    path = tmp_path / "set" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        row for row in content["annotations"] if row["category_id"] != 5
    ]
    path.write_text(json.dumps(content))
    values, _ = evaluated(dataset, tmp_path / "run")
    assert values["AP"] == pytest.approx(1.0)
    text = (tmp_path / "run" / "per_class.json").read_text()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    classes = json.loads(text, parse_constant=refuse)
    assert classes["kind 5"] is None and classes["kind 3"] == 1.0


def test_missing_pycocotools_is_an_error_before_training(
    dataset, tmp_path, monkeypatch
):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        coco_metric.RecipeError, match="pip install pycocotools"
    ):
        evaluated(dataset, tmp_path)
    assert not (tmp_path / "predictions.json").exists()
