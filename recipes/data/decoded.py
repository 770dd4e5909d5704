"""A small set of images, decoded once and kept in memory.

Where images are a few pixels wide, finding and decoding them takes longer than
training on them. What fits is decoded before the run, in the order of the
files, so that example `i` is what it would be when read by its number.
"""

import tensorflow as tf

# Of pixels, all examples of a set together: CIFAR-10 has 184 MB.
MAX_BYTES_IN_MEMORY = 2**28
DECODE_BATCH = 1024


def fits_in_memory(shape, num_examples):
    """Whether so many uint8 images of that shape are kept in memory."""
    if None in shape:
        return False
    height, width, num_channels = shape
    return height * width * num_channels * num_examples <= MAX_BYTES_IN_MEMORY


def load_decoded(files, parse, shape):
    """Images uint8 `(n, height, width, channels)` and labels int64 `(n,)`.

    Args:
        files: Paths of the TFRecord files, in order.
        parse: `f(record)` gives the bytes of an image and its label.
        shape: `(height, width, channels)` of every image.

    Returns:
        The two arrays, or None if an image cannot be decoded: whoever reads it
        by its number says which one.
    """

    def decode(record):
        image, label = parse(record)
        pixels = tf.io.decode_image(image, shape[-1], expand_animations=False)
        return tf.ensure_shape(pixels, shape), label

    records = tf.data.TFRecordDataset([str(file) for file in files])
    chunks = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(
        DECODE_BATCH
    )
    try:
        parts = list(chunks)
    except tf.errors.OpError:
        return None
    images, labels = zip(*parts, strict=True)
    return tf.concat(images, axis=0), tf.concat(labels, axis=0)
