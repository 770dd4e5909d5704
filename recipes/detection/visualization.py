"""Pictures with what is annotated and what was found, for a report."""

import base64
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

# Blue and orange of one brightness, which every eye tells apart. The dark
# casing parts them from light pictures.
COLORS = {"truth": "#4fc3ff", "found": "#ffa31a"}
# What is annotated is the wider one: it shows on both sides of a box that was
# found at the same place. In points.
WIDTHS = {"truth": 2.2, "found": 0.9}
CASING, CASING_WIDTH = "#101010", 0.5
TEXT_SIZE, TEXT_PAD = 6.5, 0.8
DASHES = (0, (3, 2))
# The figure in inches, and dots an inch: sharp on a page of 1000 pixels, even
# on screens with finer dots, at about 1 MB for 12 photos.
WIDTH, DOTS = 10, 160
TITLE_HEIGHT, LEGEND_HEIGHT, GAP = 0.2, 0.3, 0.08
# Where a picture is taller, it gets narrower.
MAX_ASPECT = 1.3
# Letters of a class name that are shown.
NAME_LENGTH = 14
# Where more is found on a picture, its scores would hide it.
MAX_LABELS = 12


def page(images, annotations, detections, class_names, **settings):
    """The pictures of `draw` as HTML that needs no other file: an `<img>`."""
    figure = draw(images, annotations, detections, class_names, **settings)
    data = base64.b64encode(jpeg(figure)).decode()
    described = f"{len(images)} images with annotated boxes and detections"
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{described}" '
        f'style="width: 100%">'
    )


def jpeg(figure):
    """A figure as the bytes of a JPEG file."""
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=DOTS, pil_kwargs={"quality": 85})
    return file.getvalue()


def draw(
    images, annotations, detections, class_names, min_score=0.3, num_columns=4
):
    """A figure of images with their boxes.

    Scores are written at the surest detections, up to `MAX_LABELS` an image and
    none over another.

    Args:
        images: uint8 `(height, width, 3)` or `(height, width, 1)`, of any size.
        annotations: One for each image, see `sources.Annotation`.
        detections: A `metric.Detections` for each image.
        class_names: By label. They are shown where there are several.
        min_score: Detections with a lower score are left out; the legend says
            how many.
        num_columns: Images side by side.

    Raises:
        ValueError: if there is no image, or not as many of each.
    """
    lengths = len(images), len(annotations), len(detections)
    if not images or len(set(lengths)) != 1:
        raise ValueError(
            "Every image needs its annotation and its detections, and there "
            "must be one. Received: {} images, {} annotations, {} "
            "detections.".format(*lengths)
        )
    figure, grid = _grid(images, num_columns)
    names = class_names if len(class_names) > 1 else None
    num_drawn = 0
    for axes, image, annotation, found in zip(
        grid, images, annotations, detections, strict=True
    ):
        _picture(axes, image)
        _truths(axes, annotation)
        num_boxes = _found(axes, found, names, min_score)
        num_drawn += num_boxes
        axes.set_title(
            f"image {annotation.image_id}: {_boxes(len(annotation.boxes))}, "
            f"{num_boxes} detection{'s' * (num_boxes != 1)}",
            fontsize=7.5,
            pad=3,
        )
    num_found = sum(len(found.scores) for found in detections)
    has_crowd = any(np.any(each.is_crowd) for each in annotations)
    _legend(figure, has_crowd, min_score, num_drawn, num_found)
    return figure


def _grid(images, num_columns):
    """A figure with axes for each image, rows as high as they need to be."""
    num_columns = min(num_columns, len(images))
    width = (WIDTH - GAP * (num_columns + 1)) / num_columns
    rows = [
        images[first : first + num_columns]
        for first in range(0, len(images), num_columns)
    ]
    heights = [width * max(map(_aspect, row)) for row in rows]
    height = sum(heights) + (TITLE_HEIGHT + GAP) * len(rows) + LEGEND_HEIGHT
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS)
    FigureCanvasAgg(figure)  # It measures texts.
    axes, bottom = [], height - LEGEND_HEIGHT
    for row, row_height in zip(rows, heights, strict=True):
        bottom -= TITLE_HEIGHT + row_height
        for column in range(len(row)):
            left = GAP + column * (width + GAP)
            place = np.array([left, bottom, width, row_height])
            size = np.array([WIDTH, height] * 2)
            axes.append(figure.add_axes(place / size))
        bottom -= GAP
    return figure, axes


def _aspect(image):
    return min(image.shape[0] / image.shape[1], MAX_ASPECT)


def _picture(axes, image):
    height, width, _ = image.shape
    # Edges at whole numbers, where those of the boxes are.
    axes.imshow(
        np.broadcast_to(image, (height, width, 3)),
        extent=(0, width, height, 0),
        interpolation="auto",
    )
    axes.set_anchor("N")
    axes.apply_aspect()
    axes.set_axis_off()


def _truths(axes, annotation):
    for box, is_crowd in zip(
        annotation.boxes, annotation.is_crowd, strict=True
    ):
        _box(axes, box, **_look("truth", is_crowd))


def _found(axes, found, names, min_score):
    """Draws the detections, the surest on top, and returns how many."""
    order = np.argsort(found.scores, kind="stable")
    order = order[np.asarray(found.scores)[order] >= min_score]
    for i in order:
        _box(axes, found.boxes[i], **_look("found"))
    taken = []
    for i in order[::-1]:
        if len(taken) == MAX_LABELS:
            break
        text = f"{found.scores[i]:.2f}"
        if names is not None:
            text = f"{_shorten(names[found.labels[i]])} {text}"
        _label(axes, found.boxes[i], text, taken)
    return len(order)


def _look(kind, is_dashed=False):
    return {
        "edgecolor": COLORS[kind],
        "linewidth": WIDTHS[kind],
        "linestyle": DASHES if is_dashed else "-",
        "path_effects": [
            withStroke(linewidth=WIDTHS[kind] + CASING_WIDTH, foreground=CASING)
        ],
    }


def _box(axes, box, **look):
    ymin, xmin, ymax, xmax = map(float, box)
    axes.add_patch(
        Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, **look)
    )


def _label(axes, box, text, taken):
    """Writes a text above the box, unless that would cover another one.

    Args:
        axes: Axes of the picture.
        box: `(4,)`.
        text: What to write.
        taken: Where the texts of this picture are, in dots. A new one is added.
    """
    ymin, xmin, _, _ = map(float, box)
    label = axes.annotate(
        text,
        (xmin, ymin),
        (TEXT_PAD, TEXT_PAD),
        textcoords="offset points",
        va="bottom",
        fontsize=TEXT_SIZE,
        bbox={
            "boxstyle": f"square,pad={TEXT_PAD / TEXT_SIZE}",
            "facecolor": COLORS["found"],
            "edgecolor": "none",
        },
        # A dollar sign would start a formula.
        parse_math=False,
    )
    picture, extent = axes.get_window_extent(), label.get_window_extent()
    beyond = max(extent.x1 - picture.x1, 0) * 72 / DOTS
    if extent.y1 > picture.y1:
        label.set_va("top")
        label.xyann = (TEXT_PAD - beyond, -TEXT_PAD)
    else:
        label.xyann = (TEXT_PAD - beyond, TEXT_PAD)
    extent = label.get_window_extent().padded(TEXT_PAD * DOTS / 72)
    if extent.count_overlaps(taken):
        label.remove()
    else:
        taken.append(extent)


def _boxes(number):
    return "1 box" if number == 1 else f"{number} boxes"


def _shorten(name):
    is_short = len(name) <= NAME_LENGTH
    return name if is_short else name[: NAME_LENGTH - 1] + "…"


def _legend(figure, has_crowd, min_score, num_drawn, num_found):
    looks = {"annotated box": _look("truth")}
    if has_crowd:
        looks["annotated as a crowd"] = _look("truth", True)
    looks[
        f"detection with a score of {min_score:g} or more, written where "
        f"there is room: {num_drawn:,} of {num_found:,}"
    ] = _look("found")
    figure.legend(
        [
            Rectangle((0, 0), 1, 1, fill=False, **look)
            for look in looks.values()
        ],
        looks,
        loc="upper center",
        ncols=len(looks),
        fontsize=8.5,
        frameon=False,
        borderaxespad=0.2,
    )
