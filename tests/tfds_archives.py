"""Small archives in the form that TFDS' own builders expect."""

import io
import tarfile

import numpy as np
import tensorflow as tf

CLASSES = 4


def jpeg(label, seed, height=96, width=120):
    """JPEG bytes: noise around a colour that tells the label."""
    generator = np.random.default_rng((label, seed))
    color = np.array([40 + 50 * label, 220 - 50 * label, 128])
    noise = generator.normal(0, 30, (height, width, 3))
    image = np.clip(color + noise, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(image).numpy()


def imagenet(manual_dir, wnids, num_train, num_eval):
    """ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.

    Args:
        manual_dir: Path of a folder that is there.
        wnids: WordNet ids of all classes, in the order of labels.
        num_train: Training images of each of the first few classes.
        num_eval: Evaluation images, whose labels TFDS knows by their number.
    """
    with tarfile.open(manual_dir / "ILSVRC2012_img_train.tar", "w") as outer:
        for label in range(CLASSES):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(num_train):
                    name = f"{wnids[label]}_{i}.JPEG"
                    _add(archive, name, jpeg(label, i))
            _add(outer, f"{wnids[label]}.tar", inner.getvalue())
    with tarfile.open(manual_dir / "ILSVRC2012_img_val.tar", "w") as archive:
        for i in range(num_eval):
            name = f"ILSVRC2012_val_{i + 1:08d}.JPEG"
            _add(archive, name, jpeg(i % CLASSES, 1000 + i))


def folder(root, num_train, num_eval):
    """JPEG and PNG files below split/label/."""
    for split, count in (("train", num_train), ("validation", num_eval)):
        for label in range(CLASSES):
            path = root / split / f"label{label}"
            path.mkdir(parents=True)
            for i in range(count):
                data = jpeg(label, i, 40, 48)
                name = f"{i}.jpg"
                if i % 3 == 0:
                    data = tf.io.encode_png(tf.io.decode_jpeg(data)).numpy()
                    name = f"{i}.png"
                (path / name).write_bytes(data)


def _add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
