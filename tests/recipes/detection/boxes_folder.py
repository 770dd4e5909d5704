"""A small folder of images with annotations in COCO's format."""

import json

from tests import tfds_archives

# Height and width of the images 30, 10 and 20, in this order.
SIZES = {30: (40, 48), 10: (32, 50), 20: (24, 21)}
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "bee"}]


def box(number, image_id, bbox, category_id=3, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        **more,
    }


def content():
    """Returns the annotations of a split; image 20 has none."""
    images = [
        {"id": i, "file_name": f"{i}.jpg", "height": h, "width": w}
        for i, (h, w) in SIZES.items()
    ]
    annotations = [
        box(5, 10, [3, 4, 10, 20], 7, area=77.5, iscrowd=0),
        box(6, 30, [1.5, 2.25, 30, 7]),
        box(2, 10, [40, 0, 30, 40], iscrowd=1, area=None),
        box(9, 10, [8, 9, 0, 3]),
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
        "info": {"year": 2024},
    }


# The annotation file and the image folder of both splits, for each layout.
LAYOUTS = {
    "coco": {
        "annotations/instances_train2017.json": "train2017",
        "annotations/instances_val2017.json": "val2017",
    },
    "images/<same>": {
        "annotations/instances_train.json": "images/train",
        "annotations/instances_val.json": "images/val",
    },
    "images": {
        "annotations/instances_train_a.json": "images",
        "annotations/instances_val_b.json": "images",
    },
    "roboflow": {
        "train/_annotations.coco.json": "train",
        "valid/_annotations.coco.json": "valid",
    },
    "roboflow test": {
        "train/_annotations.coco.json": "train",
        "test/_annotations.coco.json": "test",
    },
}


def write(root, layout="coco", train=None, evaluation=None):
    parts = train or content(), evaluation or content()
    for (path, folder), part in zip(
        LAYOUTS[layout].items(), parts, strict=True
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(part))
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i, size in SIZES.items():
            data = tfds_archives.jpeg(1, i, *size)
            (root / folder / f"{i}.jpg").write_bytes(data)
    return root
