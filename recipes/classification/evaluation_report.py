"""Report section with class accuracies, confusion matrix and mistakes.

The browser draws all text, because it has fonts for class names in every
language.
"""

import base64
import html
import io

import numpy as np
import PIL.Image
import tensorflow as tf

from recipes.classification import class_metrics
from recipes.data import image_files
from recipes.run_dir import metrics_log

# A longer table shows only the classes with the lowest accuracy.
MAX_ROWS = 50
NUM_PICTURES = 12
SIDE = 160
# Sizes in the figure, in pixels.
CELL, LONGEST_NAME, LETTER = 32, 24, 7
BLUE = (59, 111, 182)


def render_evaluation(config, data):
    """Renders the newest evaluation as HTML; empty if there is none.

    Args:
        config: Config of the run.
        data: `Data` of the run.
    """
    with metrics_log.skip_if_damaged(config.folder / class_metrics.FILE):
        return _render(class_metrics.read_class_metrics(config.folder), data)
    return ""


def _render(metrics, data):
    if not metrics or metrics["class_names"] != list(data.source.class_names):
        return ""
    parts = [_render_accuracies(metrics)]
    if metrics["confusion"]:
        parts += ["<h2>Confusion matrix</h2>", _render_matrix(metrics)]
    parts.append(_render_mistakes(metrics["mistakes"], data.source.evaluation))
    return "\n".join(part for part in parts if part)


def _render_accuracies(metrics):
    """Renders a table of class accuracies in ascending order."""
    rows = [
        (accuracy, name, number)
        for name, accuracy, number in zip(
            metrics["class_names"],
            metrics["accuracy"],
            metrics["num_examples"],
            strict=True,
        )
        if number
    ]
    rows.sort(key=lambda row: row[0])
    heading = "Accuracy by class"
    if len(rows) > MAX_ROWS:
        heading += (
            f": the lowest {MAX_ROWS} of {len(rows):,}; see all in "
            f"{class_metrics.FILE}"
        )
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{accuracy:.1%} of {number:,}</td>"
        "</tr>\n"
        for accuracy, name, number in rows[:MAX_ROWS]
    )
    return f"<h2>{heading}</h2>\n<table>\n{cells}</table>"


def _render_matrix(metrics):
    """Renders the confusion matrix as SVG with one row per label."""
    names = [html.escape(_shorten(n)) for n in metrics["class_names"]]
    matrix = np.array(metrics["confusion"])
    longest = max(len(_shorten(n)) for n in metrics["class_names"])
    margin = max(longest * LETTER + 12, 60)
    size = margin + CELL * len(names) + 24
    head = (
        f'<svg viewBox="0 0 {size} {size}" style="max-width: {size}px" '
        'font-family="system-ui, sans-serif" font-size="12" role="img" '
        'aria-label="confusion matrix">'
    )
    parts = [
        head,
        f'<text x="{margin}" y="12" fill="#666">predicted</text>',
        f'<text x="0" y="{margin + 14}" fill="#666">label</text>',
    ]
    for i, name in enumerate(names):
        middle = margin + 24 + CELL * i + CELL / 2
        parts.append(
            f'<text x="{margin + 16}" y="{middle + 4}" text-anchor="end">'
            f"{name}</text>"
        )
        parts.append(
            f'<text transform="translate({middle + 4} {margin + 16}) '
            f'rotate(-90)">{name}</text>'
        )
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (i, j), fraction in np.ndenumerate(matrix / totals):
        number = matrix[i, j]
        x, y = (margin + 24 + CELL * place for place in (j, i))
        color = ",".join(str(round(255 + (c - 255) * fraction)) for c in BLUE)
        title = f"{names[i]}, predicted as {names[j]}: {number:,}"
        parts.append(
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{CELL - 1}"'
            f' height="{CELL - 1}" fill="rgb({color})" stroke="#e4e4e4"/>'
        )
        if number:
            ink = "#fff" if fraction > 0.55 else "#222"
            parts.append(
                f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 4}" fill="{ink}" '
                f'font-size="{11 if number < 1000 else 8}" '
                f'text-anchor="middle">{number}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _render_mistakes(mistakes, split):
    """Renders the wrong predictions with the highest scores as pictures."""
    figures = []
    for mistake in mistakes[:NUM_PICTURES]:
        source = _encode_picture(split, mistake["index"])
        if source is None:
            continue
        text = (
            f"<b>{html.escape(mistake['predicted'])}</b> "
            f"{mistake['score']:.0%}<br>is {html.escape(mistake['label'])}"
        )
        figures.append(
            f'<figure style="margin: 0" title="'
            f'{html.escape(mistake["image"])}"><img src="{source}" '
            'alt="" style="width: 100%; aspect-ratio: 4/3; object-fit: '
            'contain">'
            f"<figcaption>{text}</figcaption>"
            "</figure>"
        )
    if not figures:
        return ""
    grid = "\n".join(figures)
    return (
        "<h2>The most confident mistakes</h2>\n"
        '<div class="tiles" style="overflow-wrap: anywhere">\n'
        f"{grid}\n</div>"
    )


def _encode_picture(split, index):
    """Returns an image as a data URL; None if it cannot be read anymore."""
    try:
        image, _ = split.read(tf.constant(index, tf.int64))
        if image.dtype == tf.string:
            pixels = image_files.decode(image, 3)
            if split.path is not None:
                orientation = image_files.read_orientation(image)
                pixels = image_files.rotate_upright(pixels, orientation)
        else:
            pixels = image
    except tf.errors.OpError:
        return None
    picture = PIL.Image.fromarray(np.squeeze(pixels.numpy()))
    picture.thumbnail((SIDE, SIDE))
    if max(picture.size) < SIDE // 2:
        factor = SIDE // max(picture.size)
        sides = [side * factor for side in picture.size]
        picture = picture.resize(sides, PIL.Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return (
        f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    )


def _shorten(name):
    is_short = len(name) <= LONGEST_NAME
    return name if is_short else name[: LONGEST_NAME - 1] + "…"
