"""Draws annotated boxes and detections on images for the report of a run."""

import base64
import html
import io
import json

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
import tensorflow as tf
from matplotlib import font_manager

from recipes.data import image_files
from recipes.detection import coco_metric
from recipes.detection.evaluator import PER_CLASS
from recipes.detection.evaluator import PREDICTIONS
from recipes.run_dir import metrics_log

HEADINGS = {"evaluation": "Evaluation images", "train": "Training images"}
NUM_IMAGES = 12
# Largest width and height of a picture in pixels.
SIZE = (400, 520)
# Blue and orange of equal brightness, which color-blind readers can tell apart,
# with a dark outline for bright images.
ANNOTATION, CROWD, DETECTION = "#4fc3ff", "#d58cff", "#ffa31a"
OUTLINE = "#101010"
# Detections with a lower score are not drawn.
MIN_SCORE = 0.3
# Score labels per image. More of them would hide the image.
MAX_LABELS = 12
MAX_NAME = 14
LEGEND = (
    f"Blue: annotated boxes; violet: annotated as a crowd. Orange: detections "
    f"with a score of at least {MIN_SCORE}, labeled if there is room."
)


def render_page(config, data):
    """Returns HTML with images and their boxes, and AP by class.

    Args:
        config: A `DetectionConfig`.
        data: The `Data` of the run.
    """
    sections = []
    for split, heading in HEADINGS.items():
        path = config.folder / PREDICTIONS[split]
        if path.exists():
            with metrics_log.skip_if_damaged(path):
                predictions = json.loads(path.read_bytes())
                examples = select_images(
                    getattr(data.source, split), data.source, predictions
                )
                pictures = [
                    _to_html(*example, data.source.class_names)
                    for example in examples
                ]
                if pictures:
                    legend = f"<h2>{heading}</h2>\n<p>{LEGEND}</p>"
                    sections += [legend, *pictures]
    path = config.folder / PER_CLASS
    if path.exists() and data.num_classes > 1:
        with metrics_log.skip_if_damaged(path):
            known = json.loads(path.read_bytes())
            known = {k: v for k, v in known.items() if v is not None}
            _check_finite(list(known.values()))
            rows = "".join(
                f"<tr><td>{html.escape(name)}</td><td>{value:.1%}</td></tr>\n"
                for name, value in sorted(known.items(), key=lambda x: -x[1])
            )
            sections.append(f"<h2>AP by class</h2>\n<table>\n{rows}</table>")
    return "\n".join(sections)


def select_images(split, source, predictions, count=NUM_IMAGES):
    """Selects evenly spaced images that have annotated boxes.

    Images that cannot be decoded, or whose size differs from the annotated one,
    are omitted. The evaluation has already reported them.

    Args:
        split: A `Split`.
        source: The `Source` of the split.
        predictions: List of dicts in COCO's results format.
        count: Maximum number of images.

    Returns:
        List of `(image, annotation, detections)`: uint8 `(height, width, 3)`,
        an `Annotation` and `coco_metric.Detections`.

    Raises:
        TypeError, ValueError, KeyError: for predictions that are damaged.
    """
    annotations = split.annotations()
    indices = [i for i, each in enumerate(annotations) if len(each.boxes)]
    step = max(len(indices) / count, 1.0)
    indices = [indices[int(k)] for k in np.arange(0, len(indices), step)]
    examples = []
    for i in indices[:count]:
        try:
            example = split.read(tf.constant(i, tf.int64))
            image = image_files.decode(example["image"], 3)
        except tf.errors.OpError:
            continue
        size = example.get("size")
        if size is not None and image.shape[:2] != size.numpy().tolist():
            continue
        image_id = annotations[i].image_id
        found = [each for each in predictions if each["image_id"] == image_id]
        boxes = _check_finite([each["bbox"] for each in found]).reshape(-1, 4)
        left, top, width, height = boxes.T
        labels = [source.category_ids.index(e["category_id"]) for e in found]
        detections = coco_metric.Detections(
            boxes=np.stack([top, left, top + height, left + width], axis=1),
            scores=_check_finite([each["score"] for each in found]),
            labels=np.array(labels, np.int64),
        )
        examples.append((image.numpy(), annotations[i], detections))
    return examples


def _check_finite(values):
    """Returns a list of numbers as an array; raises an error for others."""
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def draw(image, annotation, detections, class_names):
    """Draws an image with its annotated boxes and detections.

    Labels show the scores of the best detections, unless they would overlap the
    label of a better one.

    Args:
        image: uint8 `(height, width, 3)` or `(height, width, 1)`.
        annotation: The `Annotation` of the image.
        detections: The `coco_metric.Detections` of the image.
        class_names: Class name of each label. Labels show it if there are
            several classes.

    Returns:
        The picture, a `PIL.Image.Image`, and its caption.
    """
    height, width, num_channels = image.shape
    picture = PIL.Image.fromarray(np.repeat(image, 3 // num_channels, axis=-1))
    picture = PIL.ImageOps.contain(picture, SIZE)
    scale = np.tile([picture.height / height, picture.width / width], 2)
    canvas = PIL.ImageDraw.Draw(picture)

    def draw_box(box, color, line):
        ymin, xmin, ymax, xmax = np.round(box * scale)
        for grow, shade in ((line // 2 + 1, OUTLINE), (line // 2, color)):
            corners = xmin - grow, ymin - grow, xmax + grow - 1, ymax + grow - 1
            width = line + 2 * (shade == OUTLINE)
            canvas.rectangle(corners, outline=shade, width=width)

    for box, crowd in zip(annotation.boxes, annotation.is_crowd, strict=True):
        draw_box(box, CROWD if crowd else ANNOTATION, 8)
    best = np.argsort(-detections.scores, kind="stable")
    best = best[detections.scores[best] >= MIN_SCORE]
    for box in detections.boxes[best[::-1]]:
        draw_box(box, DETECTION, 4)  # Within the wider line of an annotation.
    font = PIL.ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)
    is_taken = np.zeros((picture.height, picture.width), bool)
    for i in best[:MAX_LABELS]:
        text = f"{detections.scores[i]:.2f}"
        if len(class_names) > 1:
            text = f"{class_names[detections.labels[i]][:MAX_NAME]} {text}"
        top, left = (detections.boxes[i] * scale)[:2].astype(int)
        _, _, right, bottom = map(int, canvas.textbbox((3, 1), text, font))
        left = max(min(left, picture.width - right - 3), 0)
        top = max(top - bottom - 3, 0)
        area = is_taken[top : top + bottom + 3, left : left + right + 3]
        if not area.any():
            area[:] = True
            corners = left, top, left + right + 2, top + bottom + 2
            canvas.rectangle(corners, fill=DETECTION)
            canvas.text((left + 3, top + 1), text, OUTLINE, font)
    return picture, (
        f"image {annotation.image_id}: {len(annotation.boxes)} annotated, "
        f"{len(best)} of {len(detections.scores)} detections"
    )


def _to_html(*example):
    picture, caption = draw(*example)
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        '<figure style="display: inline-block; width: 23%; margin: 0.5%; '
        f'vertical-align: top"><img src="data:image/jpeg;base64,{data}" '
        f'alt="{caption}" style="max-width: 100%"><figcaption>{caption}'
        "</figcaption></figure>"
    )
