"""Small datasets in the file format of TFDS."""

import tensorflow as tf
import tensorflow_datasets as tfds

from tests import tfds_archives

NAME = "tiny_jpegs"


# Images of any height and width.
ANY_SHAPE = (None, None, 3)


def write(data_dir, images, num_eval, num_files=3, shape=ANY_SHAPE):
    """Writes a dataset `tiny_jpegs` in which each label is the image's index.

    Args:
        data_dir: Path of the folder that becomes the `data_dir` of TFDS.
        images: Bytes of the images; the last `num_eval` are for validation.
        num_eval: Number of evaluation images.
        num_files: Number of files of the training images.
        shape: Of all images, as the set declares it.

    Returns:
        The path of the folder that the files are in.
    """
    folder = data_dir / NAME / "1.0.0"
    folder.mkdir(parents=True)
    records = [record(image, label) for label, image in enumerate(images)]
    num_train = len(records) - num_eval
    splits = {
        "train": [records[i:num_train:num_files] for i in range(num_files)],
        "validation": [records[num_train:]],
    }
    for split, shards in splits.items():
        for i, shard in enumerate(shards):
            place = f"{i:05d}-of-{len(shards):05d}"
            path = folder / f"{NAME}-{split}.tfrecord-{place}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for each in shard:
                    writer.write(each)
    lengths = {
        name: [len(s) for s in shards] for name, shards in splits.items()
    }
    describe(folder, lengths, shape)
    return folder


def describe(folder, shard_lengths, shape=ANY_SHAPE):
    """Writes the metadata that TFDS keeps for a dataset."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=1000),
        }
    )
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=1,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder,
                    dataset_name=NAME,
                    split=split,
                    filetype_suffix="tfrecord",
                    template=template,
                ),
            )
            for split, lengths in shard_lengths.items()
        ],
        supervised_keys=("image", "label"),
    )


def record(image, label):
    """Returns a serialized example."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString()


def jpegs(count):
    """Returns different JPEG images."""
    return [tfds_archives.jpeg(i % 4, i, 40, 48) for i in range(count)]
