"""Opens detection datasets of TensorFlow Datasets with random access."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.data import tfds_reader
from recipes.detection.datasets import annotations
from recipes.detection.datasets.annotations import Annotation
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split
from recipes.errors import RecipeError

EXAMPLES = ("coco/2017", "coco/2014", "voc/2007", "voc/2012")
IMAGE_ID = "image/id"
# Features that mark boxes to ignore in the evaluation: VOC ignores difficult
# objects, as COCO ignores crowds.
CROWD_KEYS = ("is_crowd", "is_difficult")
# Category ids between 1 and 90 that COCO does not use. The labels of TFDS are
# numbered from 0 without gaps, in the same order.
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


@dataclasses.dataclass(frozen=True)
class _Keys:
    """Names of the features of a dataset.

    Attributes:
        image: The image.
        image_id: The id of the image, or None.
        objects: The sequence of objects, which contains the following features.
        box: The box.
        label: The class label.
        crowd: The first of `CROWD_KEYS` in the dataset, or None.
        area: The area in square pixels, or None.
    """

    image: str
    image_id: str | None
    objects: str
    box: str
    label: str
    crowd: str | None
    area: str | None


def open_dataset(config, builder=None):
    """Opens the TFDS dataset `config.dataset`.

    Args:
        config: Config with `dataset` and `data_dir`.
        builder: Its builder, if it has been found already.

    Returns:
        A `Source`.

    Raises:
        RecipeError: if the dataset does not exist, has no boxes, or cannot be
            prepared.
    """
    builder = builder or tfds_reader.find_builder(config, (), EXAMPLES)
    features = builder.info.features
    keys = _find_keys(features)
    if keys is None:
        raise RecipeError(
            f"--dataset={config.dataset} is not a detection dataset. It needs "
            "an image, and a sequence of objects with a box and a class label. "
            f"Its features are {', '.join(features)}."
        )
    tfds_reader.prepare_builder(builder)
    splits = builder.info.splits
    names = [n for n in tfds_reader.EVAL_SPLITS if n in splits]
    parse = _make_parser(features, keys)
    train, evaluation = (
        next((s for s in found if _has_boxes(s, parse)), None)
        for found in (
            [splits[n] for n in ("train",) if n in splits],
            [splits[n] for n in names],
        )
    )
    if not (train and evaluation):
        raise RecipeError(
            f"--dataset={config.dataset} must have a train split and a "
            "validation or test split with boxes. Its splits are "
            f"{', '.join(splits)}."
        )
    label = features[keys.objects].feature[keys.label]
    return Source(
        class_names=tuple(label.names),
        category_ids=_category_ids(builder, label.num_classes),
        train=_make_split(train, parse),
        evaluation=_make_split(evaluation, parse),
    )


def _find_keys(features):
    """Returns the `_Keys` of a dataset, or None without boxes."""
    images = _names_of_type(features, tfds.features.Image)
    has_id = IMAGE_ID in features and features[IMAGE_ID].np_dtype == np.int64
    for objects, sequence in features.items():
        if not isinstance(sequence, tfds.features.Sequence):
            continue
        object_features = sequence.feature
        if not isinstance(object_features, tfds.features.FeaturesDict):
            continue
        boxes = _names_of_type(object_features, tfds.features.BBoxFeature)
        labels = _names_of_type(object_features, tfds.features.ClassLabel)
        if images and boxes and labels:
            return _Keys(
                image="image" if "image" in images else images[0],
                image_id=IMAGE_ID if has_id else None,
                objects=objects,
                box=boxes[0],
                label="label" if "label" in labels else labels[0],
                crowd=next(
                    (k for k in CROWD_KEYS if k in object_features), None
                ),
                area="area" if "area" in object_features else None,
            )


def _names_of_type(features, kind):
    return [key for key, each in features.items() if isinstance(each, kind)]


def _category_ids(builder, num_classes):
    is_coco = builder.name == "coco" and num_classes == 80
    gaps = COCO_GAPS if is_coco else ()
    ids = (i for i in range(1, num_classes + len(gaps) + 1) if i not in gaps)
    return tuple(ids)


def _make_parser(features, keys):
    """Returns `f(record)`, which parses a record as in `Split.read`.

    Its result also contains `areas` and `image_id`, which are -1 in datasets
    without them.
    """
    object_features = features[keys.objects].feature
    objects = {keys.box, keys.label, keys.crowd, keys.area} - {None}
    used = {key: features[key] for key in {keys.image, keys.image_id} - {None}}
    used[keys.objects] = tfds.features.Sequence(
        {key: object_features[key] for key in objects}
    )
    # Unused features, such as masks, are not even read.
    partial = tfds.features.FeaturesDict(used)
    skip = {keys.image: tfds.decode.SkipDecoding()}

    def parse(record):
        example = partial.deserialize_example(record, decoders=skip)
        found = example[keys.objects]
        boxes = found[keys.box]
        kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
        no_areas = -tf.ones_like(boxes[:, 0])
        columns = {
            "boxes": boxes,
            "labels": found[keys.label],
            "is_crowd": found.get(keys.crowd, tf.zeros_like(kept)),
            "areas": tf.cast(found.get(keys.area, no_areas), tf.float32),
        }
        return {
            "image": example[keys.image],
            "image_id": example.get(keys.image_id, tf.constant(-1, tf.int64)),
            **{key: column[kept] for key, column in columns.items()},
        }

    return parse


def _open_records(info):
    return tf.data.TFRecordDataset([str(path) for path in info.filepaths])


def _has_boxes(info, parse):
    """Returns True if any image has boxes: COCO's test split has none."""
    found = _open_records(info).map(
        lambda record: tf.shape(parse(record)["boxes"])[0] > 0,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return any(found.as_numpy_iterator())


def _make_split(info, parse):
    _, index, name = tfds_reader.index_split(info)

    def read(i):
        example = parse(index.read(i))
        keys = ("image", "boxes", "labels", "is_crowd")
        return {key: example[key] for key in keys}

    def measure(record):
        example = parse(record)
        return {**example, "image": _read_size(example["image"])}

    @functools.cache
    def annotate():
        examples = _open_records(info).map(
            measure, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return [
            _annotation(i, example)
            for i, example in enumerate(examples.as_numpy_iterator())
        ]

    return Split(
        num_examples=len(index), read=read, name=name, annotations=annotate
    )


def _read_size(encoded):
    """Returns height and width of an encoded image; 0 if it is invalid.

    Invalid images are reported or skipped when they are decoded.
    """
    sizes = tf.data.Dataset.from_tensors(encoded).map(annotations.image_size)
    none = tf.data.Dataset.from_tensors(tf.zeros(2, tf.int32))
    found = sizes.ignore_errors().concatenate(none)
    return found.take(1).get_single_element()


def _annotation(index, example):
    size = example["image"]
    boxes = example["boxes"] * np.tile(size, 2).astype(np.float32)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    areas, image_id = example["areas"], int(example["image_id"])
    return Annotation(
        image_id=index + 1 if image_id < 0 else image_id,
        height=int(size[0]),
        width=int(size[1]),
        boxes=boxes,
        labels=example["labels"],
        is_crowd=example["is_crowd"],
        areas=np.where(areas < 0, own, areas),
    )
