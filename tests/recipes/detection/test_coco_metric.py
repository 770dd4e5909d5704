import dataclasses
import json
import math
import sys

import numpy as np
import pytest

from recipes.detection import coco_metric
from recipes.errors import RecipeError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
# As in COCO: in floating point, 0.7 is below the 70th value.
RECALLS = np.linspace(0, 1, 101)
RANGES = {
    "": (0, 1e10),
    "_small": (0, 32**2),
    "_medium": (32**2, 96**2),
    "_large": (96**2, 1e10),
}


@dataclasses.dataclass(frozen=True)
class Annotation:
    image_id: int
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray
    height: int = 500
    width: int = 700


def area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def annotate(image_id, boxes, labels=None, crowd=None, areas=None):
    """Returns an annotation, by default of class 0 and without crowds."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    zeros = np.zeros(len(boxes))
    return Annotation(
        image_id,
        boxes,
        np.array(zeros if labels is None else labels, np.int64),
        np.array(zeros if crowd is None else crowd, bool),
        np.array(area(boxes) if areas is None else areas, np.float32),
    )


def detect(boxes, scores=None, labels=None):
    """Returns detections, by default of class 0 with falling scores."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    default = 1 - np.arange(len(boxes)) / 256
    return coco_metric.Detections(
        boxes,
        np.array(default if scores is None else scores, np.float32),
        np.array(np.zeros(len(boxes)) if labels is None else labels, np.int32),
    )


def ap(annotations, detections, category_ids=(1,)):
    return coco_metric.evaluate(annotations, detections, category_ids).summary


# 100 x 50 pixels, 40 x 60 pixels, and a box that touches neither.
BOX = [10.0, 20.0, 110.0, 70.0]
OTHER = [200.0, 300.0, 240.0, 360.0]
EMPTY = [400.0, 600.0, 450.0, 650.0]


def test_perfect_boxes_have_ap_1():
    generator = np.random.default_rng(0)
    # Boxes down to one pixel, where rounding matters most.
    corner = generator.uniform(0, 300, (30, 2))
    size = generator.uniform(1, 150, (30, 2)) ** (generator.random((30, 1)))
    boxes = np.concatenate([corner, corner + size], -1)
    labels = np.arange(30) % 3
    truths = [annotate(5, boxes, labels), annotate(2, [BOX, OTHER], [2, 0])]
    found = [detect(boxes, labels=labels), detect([BOX, OTHER], labels=[2, 0])]
    counted = coco_metric.evaluate(truths, found, (7, 1, 90))
    assert tuple(counted.summary) == coco_metric.NAMES
    for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AR100"):
        assert counted.summary[name] == pytest.approx(1.0), name
    assert all(type(value) is float for value in counted.summary.values())
    assert counted.class_ap == pytest.approx((1, 1, 1))


def test_false_positive_with_a_higher_score_halves_ap():
    scores = ap([annotate(1, BOX)], [detect([EMPTY, BOX])])
    assert scores["AP50"] == scores["AP"] == pytest.approx(0.5)
    assert scores["AR1"] == 0.0
    assert scores["AR10"] == 1.0
    below = ap([annotate(1, BOX)], [detect([BOX, EMPTY])])
    assert below["AP"] == pytest.approx(1.0)


def test_finding_one_of_two_boxes_gives_half_the_recalls():
    scores = ap([annotate(1, [BOX, OTHER])], [detect(BOX)])
    # Recalls 0, 0.01, ..., 0.5 of 0, 0.01, ..., 1.
    assert scores["AP"] == pytest.approx(51 / 101)
    assert scores["AR100"] == 0.5


def test_loose_box_counts_at_the_thresholds_below_its_iou():
    # 62 of 100 rows: an IoU of 0.62, above 0.5, 0.55 and 0.6.
    loose = [10.0, 20.0, 72.0, 70.0]
    scores = ap([annotate(1, BOX)], [detect(loose)])
    assert scores["AP50"] == pytest.approx(1.0)
    assert scores["AP75"] == 0.0
    assert scores["AP"] == pytest.approx(0.3)


def test_x_and_y_are_not_swapped():
    transposed = [BOX[1], BOX[0], BOX[3], BOX[2]]
    assert ap([annotate(1, BOX)], [detect(transposed)])["AP50"] == 0.0
    (row,) = coco_metric.to_predictions([annotate(1, BOX)], [detect(BOX)], (1,))
    assert row["bbox"] == [20, 10, 50, 100]


def test_detections_in_a_crowd_do_not_count():
    crowd = [200.0, 200.0, 500.0, 700.0]
    inside = [[210.0, 220.0 + 40 * i, 250.0, 250.0 + 40 * i] for i in range(9)]
    found = [detect([*inside, BOX])]
    truth = annotate(1, [BOX, crowd], crowd=[False, True])
    scores = ap([truth], found)
    assert scores["AP"] == pytest.approx(1.0)
    assert scores["AR100"] == 1.0
    assert ap([annotate(1, BOX)], found)["AP"] == pytest.approx(0.1)


def test_second_detection_of_a_box_is_a_false_positive():
    truths = [annotate(1, [BOX, OTHER])]
    scores = ap(truths, [detect([BOX, BOX, OTHER])])
    # Precision 1 up to a recall of 0.5, then 2/3.
    assert scores["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_ap_averages_classes_and_keeps_their_order():
    truths = [annotate(1, [BOX, OTHER], [0, 2])]
    # Falling ids, which pycocotools sorts in another order.
    found = [detect([BOX, EMPTY, OTHER], labels=[0, 2, 2])]
    counted = coco_metric.evaluate(truths, found, (90, 40, 3))
    assert counted.summary["AP"] == pytest.approx(0.75)
    of_class = counted.per_class(("cat", "dog", "cow"))
    assert list(of_class) == ["cat", "dog", "cow"]
    assert of_class["cat"] == pytest.approx(1.0)
    assert math.isnan(of_class["dog"])
    assert of_class["cow"] == pytest.approx(0.5)
    with pytest.raises(ValueError):
        counted.per_class(("cat", "dog"))


def test_object_size_is_the_annotated_area():
    scores = ap([annotate(1, BOX, areas=[900])], [detect(BOX)])
    assert scores["AP_small"] == pytest.approx(1.0)
    assert scores["AR_small"] == 1.0
    for name in ("AP_medium", "AP_large", "AR_medium", "AR_large"):
        assert math.isnan(scores[name]), name


def test_detections_on_an_image_without_boxes_are_false_positives():
    truths = [annotate(1, BOX), annotate(2, [])]
    found = [detect(BOX, [0.5]), detect(EMPTY, [0.75])]
    assert ap(truths, found)["AP"] == pytest.approx(0.5)


def test_no_detections_give_0_and_no_annotations_give_nan():
    scores = ap([annotate(1, BOX), annotate(2, [])], [detect([]), detect([])])
    assert scores["AP"] == scores["AP_medium"] == scores["AR100"] == 0.0
    assert math.isnan(scores["AP_small"])
    for found in (detect([]), detect(BOX)):
        assert all(map(math.isnan, ap([annotate(1, [])], [found]).values()))
    assert all(map(math.isnan, ap([], []).values()))


def test_at_most_100_detections_per_class_count():
    false = [EMPTY] * 99
    truths = [annotate(1, BOX)]
    assert ap(truths, [detect([*false, BOX])])["AP"] == pytest.approx(0.01)
    assert ap(truths, [detect([*false, EMPTY, BOX])])["AP"] == 0.0


def test_evaluation_prints_nothing(capfd):
    ap([annotate(1, BOX)], [detect(BOX)])
    assert capfd.readouterr() == ("", "")


def test_invalid_images_are_rejected():
    one, two = annotate(1, BOX), annotate(2, BOX)
    with pytest.raises(ValueError, match="2 annotations, 1 detections"):
        ap([one, two], [detect(BOX)])
    with pytest.raises(ValueError, match="unique. Received: 1 twice"):
        ap([one, two, one], [detect(BOX)] * 3)


@pytest.mark.parametrize(
    "found",
    [
        detect(BOX, [math.nan]),
        detect([10, 20, math.inf, 70]),
        detect([10, 70, 110, 20]),
    ],
)
def test_invalid_detections_are_rejected(found):
    with pytest.raises(ValueError, match="on image 4 must be finite"):
        ap([annotate(3, BOX), annotate(4, BOX)], [detect(BOX), found])


@pytest.mark.parametrize("label", [-1, 1])
def test_invalid_labels_are_rejected(label):
    wanted = "Labels of image 4 must be from 0 to 0"
    with pytest.raises(ValueError, match=wanted):
        ap([annotate(4, BOX)], [detect(BOX, labels=[label])])
    with pytest.raises(ValueError, match=wanted):
        ap([annotate(4, BOX, [label])], [detect(BOX)])


def test_missing_pycocotools_error_has_the_install_command(monkeypatch):
    coco_metric.require_pycocotools()
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(RecipeError, match="pip install pycocotools"):
        ap([annotate(1, BOX)], [detect(BOX)])


# Reference implementation in NumPy.


def overlaps(boxes, truths, crowd):
    """Computes the IoU `(m, n)`; for crowds, the covered fraction."""
    table = np.zeros((len(boxes), len(truths)))
    for i, a in enumerate(np.asarray(boxes, np.float64)):
        for j, b in enumerate(np.asarray(truths, np.float64)):
            height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
            width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
            mine, other = area(a[None])[0], area(b[None])[0]
            union = mine if crowd[j] else mine + other - height * width
            table[i, j] = height * width / union
    return table


def match(truth, found, label, threshold, area_range, limit):
    """Returns the number of boxes and `(score, is_correct)` of an image."""
    mine, other = truth.labels == label, found.labels == label
    boxes, scores = found.boxes[other], found.scores[other]
    order = np.argsort(-scores, kind="stable")[:limit]
    boxes, scores, crowd = boxes[order], scores[order], truth.is_crowd[mine]
    iou = overlaps(boxes, truth.boxes[mine], crowd)

    def outside(areas):
        return (areas < area_range[0]) | (areas > area_range[1])

    ignored = crowd | outside(truth.areas[mine])
    is_free = np.ones(len(crowd), bool)
    outcomes = []
    for i, score in enumerate(scores):
        near = iou[i] >= threshold
        counted = np.flatnonzero(near & is_free & ~ignored)
        skipped = np.flatnonzero(near & ignored & (is_free | crowd))
        if len(counted):
            is_free[counted[np.argmax(iou[i, counted])]] = False
            outcomes.append((score, True))
        elif len(skipped):
            is_free[skipped[np.argmax(iou[i, skipped])]] = False
        elif not outside(area(boxes[i : i + 1]))[0]:
            outcomes.append((score, False))
    return np.sum(~ignored), outcomes


def curve(truths, found, label, threshold, area_range, limit):
    """Returns AP over 101 recalls and the largest recall, or None."""
    images = sorted(
        zip(truths, found, strict=True), key=lambda x: x[0].image_id
    )
    matched = [
        match(*image, label, threshold, area_range, limit) for image in images
    ]
    num_boxes = sum(count for count, _ in matched)
    if num_boxes == 0:
        return None
    outcomes = [outcome for _, outcomes in matched for outcome in outcomes]
    outcomes.sort(key=lambda outcome: -outcome[0])
    right = np.cumsum([is_right for _, is_right in outcomes] + [0])[:-1]
    precision = right / np.arange(1, len(right) + 1)
    recall = right / num_boxes
    heights = [max(precision[recall >= each], default=0.0) for each in RECALLS]
    return np.mean(heights), max(recall, default=0.0)


def oracle(truths, found, num_classes):
    """Returns COCO's 12 metrics in order, and the AP of each class."""

    def table(area_range, limit=100):
        """Returns AP and recall by class and threshold, `(k, 10, 2)`."""
        return np.array(
            [
                [
                    curve(truths, found, label, each, area_range, limit)
                    or (np.nan, np.nan)
                    for each in THRESHOLDS
                ]
                for label in range(num_classes)
            ]
        )

    def mean(values):
        values = values[~np.isnan(values)]
        return values.mean() if values.size else np.nan

    tables = {name: table(limits) for name, limits in RANGES.items()}
    expected = {f"AP{name}": mean(t[..., 0]) for name, t in tables.items()}
    expected |= {
        f"AR{name or 100}": mean(t[..., 1]) for name, t in tables.items()
    }
    expected["AP50"] = mean(tables[""][:, 0, 0])
    expected["AP75"] = mean(tables[""][:, 5, 0])
    for limit in (1, 10):
        expected[f"AR{limit}"] = mean(table(RANGES[""], limit)[..., 1])
    return expected, [mean(t[:, 0]) for t in tables[""]]


def scene(generator, image_id, num_classes):
    """Draws boxes of all sizes, and detections near them and elsewhere."""
    num_boxes, num_found = generator.integers(0, 9), generator.integers(0, 26)
    # On a grid, so that no value is rounded.
    corner = generator.integers(0, 600, (num_boxes, 2)) / 4
    size = generator.choice([60, 200, 900], (num_boxes, 1)) / 4
    size = np.round(size * generator.uniform(0.6, 1.5, (num_boxes, 2)), 1)
    boxes = np.concatenate([corner, corner + size], -1)
    labels = generator.integers(0, num_classes, num_boxes)
    truth = annotate(
        image_id,
        boxes,
        labels,
        crowd=generator.random(num_boxes) < 0.2,
        areas=area(boxes) * generator.uniform(0.4, 1, num_boxes),
    )
    far = np.sort(generator.integers(0, 900, (num_found, 2, 2)) / 4, axis=1)
    near = far.reshape(num_found, 4) + [0, 0, 1, 1]
    new_labels = generator.integers(0, num_classes, num_found)
    if num_boxes:
        which = generator.integers(0, num_boxes, num_found)
        is_near = generator.random(num_found) < 0.8
        noise = np.round(generator.normal(0, 0.05, (num_found, 4)), 2)
        moved = boxes[which] + noise * np.tile(size[which], 2)
        near = np.where(is_near[:, None], np.round(moved, 3), near)
        is_same = is_near & (generator.random(num_found) < 0.9)
        new_labels = np.where(is_same, labels[which], new_labels)
    # Multiples of 1 / 64, so that some scores are equal.
    scores = generator.integers(1, 64, num_found) / 64
    return truth, detect(near, scores, new_labels)


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_match_numpy(seed):
    generator = np.random.default_rng(seed)
    ids = generator.permutation(40)[:7]
    scenes = [scene(generator, int(i), 3) for i in ids]
    truths, found = zip(*scenes, strict=True)
    counted = coco_metric.evaluate(truths, found, (5, 61, 9))
    expected, class_ap = oracle(truths, found, 3)
    assert 0.1 < expected["AP"] < 0.9
    assert len(expected) == 12
    for name, value in expected.items():
        assert counted.summary[name] == pytest.approx(value, nan_ok=True), name
    assert counted.class_ap == pytest.approx(class_ap, nan_ok=True)
    # Independent of the image order, even for equal scores.
    backwards = ap(truths[::-1], found[::-1], (5, 61, 9))
    assert backwards == pytest.approx(counted.summary, nan_ok=True)


def test_predictions_file_has_the_same_ap(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(1)
    truths, found = zip(
        *[scene(generator, i, 2) for i in (3, 8, 5)], strict=True
    )
    # More digits than the file has.
    found = [
        dataclasses.replace(
            each,
            boxes=each.boxes + generator.random((len(each.boxes), 1)),
            scores=each.scores * 0.987654321,
        )
        for each in found
    ]
    path = tmp_path / "predictions.json"
    coco_metric.write_predictions(path, truths, found, (4, 2))
    rows = json.loads(path.read_text())
    assert len(rows) == sum(len(each.scores) for each in found)
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    edges = [edge for row in rows for edge in row["bbox"]]
    assert max(len(str(edge)) for edge in edges) == len("123.456")
    assert max(len(str(row["score"])) for row in rows) == len("0.123456")
    assert {row["category_id"] for row in rows} == {2, 4}
    annotated = COCO()
    annotated.dataset = {
        "images": [{"id": truth.image_id} for truth in truths],
        "categories": [{"id": 2}, {"id": 4}],
        "annotations": [
            {
                "id": 100 * (i + 1) + j,
                "image_id": truth.image_id,
                "category_id": (4, 2)[truth.labels[j]],
                "bbox": [box[1], box[0], box[3] - box[1], box[2] - box[0]],
                "area": float(truth.areas[j]),
                "iscrowd": int(truth.is_crowd[j]),
            }
            for i, truth in enumerate(truths)
            for j, box in enumerate(truth.boxes.astype(np.float64).tolist())
        ],
    }
    annotated.createIndex()
    counted = COCOeval(annotated, annotated.loadRes(str(path)), "bbox")
    counted.evaluate()
    counted.accumulate()
    counted.summarize()
    summary = ap(truths, found, (4, 2))
    np.testing.assert_array_equal(
        counted.stats, np.nan_to_num(list(summary.values()), nan=-1)
    )
