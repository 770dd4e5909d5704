"""Accuracy by class, confusions and mistakes of a classifier, for the report.

Texts are the browser's, which has letters for the names of all languages.
"""

import base64
import html
import io

import numpy as np
import PIL.Image
import tensorflow as tf

from recipes.classification import class_metrics
from recipes.data import image_files
from recipes.run_dir import run_files

# A table of more classes shows those of the lowest accuracy.
MAX_ROWS = 50
NUM_PICTURES = 12
SIDE = 160
# Of the figure, in pixels of a page of 1000.
CELL, LONGEST_NAME, LETTER = 32, 24, 7
BLUE = (59, 111, 182)


def render_evaluation(config, data):
    """HTML: what the newest evaluation says, or nothing without one.

    Args:
        config: A `Config`.
        data: Its `Data`.
    """
    with run_files.left_out_if_damaged(config.folder / class_metrics.FILE):
        return _page(class_metrics.read_class_metrics(config.folder), data)
    return ""


def _page(counted, data):
    if not counted or counted["class_names"] != list(data.source.class_names):
        return ""
    parts = [_accuracies(counted)]
    if counted["confusion"]:
        parts += ["<h2>Confusion matrix</h2>", _matrix(counted)]
    parts.append(_mistakes(counted["mistakes"], data.source.evaluation))
    return "\n".join(part for part in parts if part)


def _accuracies(counted):
    """Accuracy of each class as a table, the lowest first."""
    rows = [
        (accuracy, name, number)
        for name, accuracy, number in zip(
            counted["class_names"],
            counted["accuracy"],
            counted["num_examples"],
            strict=True,
        )
        if number
    ]
    rows.sort(key=lambda row: row[0])
    heading = "Accuracy by class"
    if len(rows) > MAX_ROWS:
        heading += (
            f": the lowest {MAX_ROWS} of {len(rows):,}; all are in "
            f"{class_metrics.FILE}"
        )
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{accuracy:.1%} of {number:,}</td>"
        "</tr>\n"
        for accuracy, name, number in rows[:MAX_ROWS]
    )
    return f"<h2>{heading}</h2>\n<table>\n{cells}</table>"


def _matrix(counted):
    """The confusion matrix as SVG, a row for each label."""
    names = [html.escape(_shorten(n)) for n in counted["class_names"]]
    matrix = np.array(counted["confusion"])
    longest = max(len(_shorten(n)) for n in counted["class_names"])
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
    for (i, j), share in np.ndenumerate(matrix / totals):
        number = matrix[i, j]
        x, y = (margin + 24 + CELL * place for place in (j, i))
        color = ",".join(str(round(255 + (c - 255) * share)) for c in BLUE)
        title = f"{names[i]}, predicted as {names[j]}: {number:,}"
        parts.append(
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{CELL - 1}"'
            f' height="{CELL - 1}" fill="rgb({color})" stroke="#e4e4e4"/>'
        )
        if number:
            ink = "#fff" if share > 0.55 else "#222"
            parts.append(
                f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 4}" fill="{ink}" '
                f'font-size="{11 if number < 1000 else 8}" '
                f'text-anchor="middle">{number}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _mistakes(mistakes, split):
    """The wrong predictions of the highest score, as pictures."""
    figures = []
    for mistake in mistakes[:NUM_PICTURES]:
        source = _picture(split, mistake["index"])
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


def _picture(split, index):
    """An image as a data URL; None where it cannot be read any more."""
    image, _ = split.read(tf.constant(index, tf.int64))
    try:
        if image.dtype == tf.string:
            turn = (
                1 if split.path is None else image_files.read_orientation(image)
            )
            pixels = image_files.rotate_upright(
                image_files.decode(image, 3), turn
            )
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
