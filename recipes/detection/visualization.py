"""Draws annotated boxes and detections on images for the report of a run."""

import base64
import html
import io
import json

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from recipes.data import image_files
from recipes.detection import coco_metric
from recipes.detection.evaluator import PER_CLASS
from recipes.detection.evaluator import PREDICTIONS
from recipes.run_dir import metrics_log

HEADINGS = {"evaluation": "Evaluation images", "train": "Training images"}
NUM_IMAGES = 12
# The page lists AP by class from this number of classes on.
MIN_CLASSES = 2

# Blue and orange of equal brightness, which color-blind readers can tell apart,
# with a dark outline for bright images.
COLORS = {"annotation": "#4fc3ff", "detection": "#ffa31a"}
# In points. Annotations are wider, so that they show on both sides of a
# detection at the same place.
LINE_WIDTHS = {"annotation": 2.2, "detection": 0.9}
OUTLINE_COLOR, OUTLINE_WIDTH = "#101010", 0.5
CROWD_DASHES = (0, (3, 2))
TEXT_SIZE, TEXT_PAD = 6.5, 0.8
# Width in inches and resolution: 1,600 pixels, about 1 MB for 12 photos.
FIGURE_WIDTH, DPI = 10, 160
TITLE_HEIGHT, LEGEND_HEIGHT, PAD = 0.2, 0.3, 0.04
# Images with a larger ratio of height to width are drawn narrower.
MAX_ASPECT = 1.3
MAX_NAME_LENGTH = 14
# Score labels per image. More of them would hide the image.
MAX_LABELS = 12


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
            examples = []
            with metrics_log.skip_if_damaged(path):
                predictions = json.loads(path.read_bytes())
                examples = select_images(
                    getattr(data.source, split), data.source, predictions
                )
            if examples:
                columns = zip(*examples, strict=True)
                image = to_html(*columns, data.source.class_names)
                sections.append(f"<h2>{heading}</h2>\n{image}")
    path = config.folder / PER_CLASS
    if path.exists() and data.num_classes >= MIN_CLASSES:
        with metrics_log.skip_if_damaged(path):
            sections.append(_class_table(json.loads(path.read_bytes())))
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
        found = _to_detections(annotations[i].image_id, source, predictions)
        examples.append((image.numpy(), annotations[i], found))
    return examples


def _to_detections(image_id, source, predictions):
    entries = [each for each in predictions if each["image_id"] == image_id]
    boxes = np.array([each["bbox"] for each in entries], np.float64)
    boxes = boxes.reshape(-1, 4)
    scores = np.array([each["score"] for each in entries], np.float64)
    scores = scores.reshape(-1)
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise ValueError(f"a box or score of image {image_id} is not finite")
    left, top, width, height = boxes.T
    labels = [
        source.category_ids.index(each["category_id"]) for each in entries
    ]
    return coco_metric.Detections(
        boxes=np.stack([top, left, top + height, left + width], axis=1),
        scores=scores,
        labels=np.array(labels, np.int64),
    )


def _class_table(per_class):
    """Returns an HTML table with the AP of each class, the best first."""
    known = {k: v for k, v in per_class.items() if v is not None}
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.1%}</td></tr>\n"
        for name, value in sorted(known.items(), key=lambda item: -item[1])
    )
    return f"<h2>AP by class</h2>\n<table>\n{rows}</table>"


def to_html(images, annotations, detections, class_names, **settings):
    """Returns the figure of `draw` as a self-contained HTML `<img>`."""
    figure = draw(images, annotations, detections, class_names, **settings)
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=DPI, pil_kwargs={"quality": 85})
    data = base64.b64encode(file.getvalue()).decode()
    alt = f"{len(images)} images with annotated boxes and detections"
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{alt}" '
        f'style="width: 100%">'
    )


def draw(
    images, annotations, detections, class_names, min_score=0.3, num_columns=4
):
    """Draws images with their annotated boxes and detections.

    Labels show the scores of the best detections, up to `MAX_LABELS` per image,
    unless they would overlap the label of a better one.

    Args:
        images: uint8 `(height, width, 3)` or `(height, width, 1)`, of any size.
        annotations: The `Annotation` of each image.
        detections: The `coco_metric.Detections` of each image.
        class_names: Class name of each label. Labels show it if there are
            several classes.
        min_score: Detections with a lower score are not drawn. The legend has
            the number of those that are.
        num_columns: Number of images per row.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if there are no images, or the lengths differ.
    """
    lengths = len(images), len(annotations), len(detections)
    if not images or len(set(lengths)) != 1:
        raise ValueError(
            "At least one image is needed, and one annotation and one "
            "`Detections` for each. Received: {} images, {} annotations, {} "
            "detections.".format(*lengths)
        )
    figure, grid = _make_figure(images, num_columns)
    orders = []
    for axes, image, annotation, found in zip(
        grid, images, annotations, detections, strict=True
    ):
        order = np.argsort(found.scores, kind="stable")
        order = order[np.asarray(found.scores)[order] >= min_score]
        _draw_image(axes, image, annotation, found.boxes[order])
        orders.append(order[::-1])
    num_drawn = sum(map(len, orders))
    num_found = sum(len(found.scores) for found in detections)
    has_crowd = any(np.any(each.is_crowd) for each in annotations)
    _draw_legend(
        figure, has_crowd, min_score, f"{num_drawn:,} of {num_found:,}"
    )
    # Labels are placed in the final layout.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, found, order in zip(grid, detections, orders, strict=True):
        _draw_labels(axes, found, order, class_names)
    return figure


def _make_figure(images, num_columns):
    """Returns a figure and the axes of each image."""
    num_columns = min(num_columns, len(images))
    aspects = [
        min(each.shape[0] / each.shape[1], MAX_ASPECT) for each in images
    ]
    ratios = [
        max(aspects[first : first + num_columns])
        for first in range(0, len(images), num_columns)
    ]
    width = FIGURE_WIDTH / num_columns - 2 * PAD
    height = sum(width * ratio + TITLE_HEIGHT + 2 * PAD for ratio in ratios)
    size = (FIGURE_WIDTH, height + LEGEND_HEIGHT)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # Measures text.
    figure.get_layout_engine().set(w_pad=PAD, h_pad=PAD, wspace=0, hspace=0)
    grid = figure.subplots(
        len(ratios), num_columns, height_ratios=ratios, squeeze=False
    ).ravel()
    for axes in grid:
        axes.set_anchor("N")
        axes.set_axis_off()
    for axes in grid[len(images) :]:
        axes.remove()
    return figure, grid[: len(images)]


def _draw_image(axes, image, annotation, detected_boxes):
    """Draws an image with a title and its boxes."""
    height, width, _ = image.shape
    image = np.broadcast_to(image, (height, width, 3))
    # Pixel edges lie at integers, as in the coordinates of boxes.
    axes.imshow(image, extent=(0, width, height, 0), interpolation="auto")
    for box, crowd in zip(annotation.boxes, annotation.is_crowd, strict=True):
        _draw_box(axes, box, "annotation", crowd)
    for box in detected_boxes:
        _draw_box(axes, box, "detection")
    counts = len(annotation.boxes), len(detected_boxes)
    axes.set_title(
        f"image {annotation.image_id}: "
        f"{counts[0]} box{'es' * (counts[0] != 1)}, "
        f"{counts[1]} detection{'s' * (counts[1] != 1)}",
        fontsize=7.5,
        pad=3,
    )


def _draw_legend(figure, has_crowd, min_score, counts):
    styles = {"annotated box": _line_style("annotation")}
    if has_crowd:
        styles["annotated as a crowd"] = _line_style("annotation", True)
    text = (
        f"detection with a score of at least {min_score:g} (labeled if there "
        f"is room): {counts}"
    )
    styles[text] = _line_style("detection")
    figure.legend(
        handles=[
            Rectangle((0, 0), 1, 1, fill=False, label=label, **style)
            for label, style in styles.items()
        ],
        loc="outside upper center",
        ncols=len(styles),
        fontsize=8.5,
        frameon=False,
        borderaxespad=0.2,
    )


def _line_style(kind, is_dashed=False):
    width = LINE_WIDTHS[kind] + OUTLINE_WIDTH
    return {
        "edgecolor": COLORS[kind],
        "linewidth": LINE_WIDTHS[kind],
        "linestyle": CROWD_DASHES if is_dashed else "-",
        "path_effects": [withStroke(linewidth=width, foreground=OUTLINE_COLOR)],
    }


def _draw_box(axes, box, kind, is_dashed=False):
    ymin, xmin, ymax, xmax = map(float, box)
    size = xmax - xmin, ymax - ymin
    style = _line_style(kind, is_dashed)
    axes.add_patch(Rectangle((xmin, ymin), *size, fill=False, **style))


def _draw_labels(axes, found, order, class_names):
    """Writes scores above boxes in order, unless they would overlap."""
    image_extent, occupied = axes.get_window_extent(), []
    for i in order:
        if len(occupied) == MAX_LABELS:
            break
        text = f"{found.scores[i]:.2f}"
        if len(class_names) > 1:
            name = class_names[found.labels[i]]
            if len(name) > MAX_NAME_LENGTH:
                name = name[: MAX_NAME_LENGTH - 1] + "…"
            text = f"{name} {text}"
        ymin, xmin, _, _ = map(float, found.boxes[i])
        label = axes.annotate(
            text,
            (xmin, ymin),
            (TEXT_PAD, TEXT_PAD),
            textcoords="offset points",
            va="bottom",
            fontsize=TEXT_SIZE,
            bbox={
                "boxstyle": f"square,pad={TEXT_PAD / TEXT_SIZE}",
                "facecolor": COLORS["detection"],
                "edgecolor": "none",
            },
            # A dollar sign would start a formula.
            parse_math=False,
        )
        extent = label.get_window_extent()
        # Keep the label inside the image: to the left, and below the edge.
        x = TEXT_PAD - max(extent.x1 - image_extent.x1, 0) * 72 / DPI
        is_inside = extent.y1 <= image_extent.y1
        label.set_va("bottom" if is_inside else "top")
        label.xyann = (x, TEXT_PAD if is_inside else -TEXT_PAD)
        extent = label.get_window_extent().padded(TEXT_PAD * DPI / 72)
        if extent.count_overlaps(occupied):
            label.remove()
        else:
            occupied.append(extent)
