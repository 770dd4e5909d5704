"""Image files as bytes: read, decoded and turned upright, in a graph.

There is no Python in it, which threads of an input pipeline would wait for.
"""

import tensorflow as tf

# What the tables of a JPEG file begin with.
TABLES = b"\xff\xdb"


def read(path):
    """The bytes of a file, none where it cannot be read."""
    good = tf.data.Dataset.from_tensors(path).map(tf.io.read_file)
    none = tf.data.Dataset.from_tensors(b"")
    return good.ignore_errors().concatenate(none).take(1).get_single_element()


def is_webp(encoded):
    """Whether bytes are those of a WebP file."""
    return tf.strings.regex_full_match(
        tf.strings.substr(encoded, 0, 12), r"RIFF\C{4}WEBP"
    )


def decode(encoded, num_channels):
    """Pixels uint8 `(height, width, num_channels)` of a file's bytes.

    JPEG, PNG, GIF and BMP, and WebP where TensorFlow decodes it. Of an
    animation it is the first image; an alpha channel is left out.
    """

    def webp():
        # It refuses to change the number of channels.
        pixels = tf.io.decode_image(encoded, 0, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, None))[..., :3]
        if num_channels == 1:
            return tf.image.rgb_to_grayscale(pixels)
        return pixels

    pixels = tf.cond(
        is_webp(encoded),
        webp,
        lambda: tf.io.decode_image(
            encoded, num_channels, expand_animations=False
        ),
    )
    return tf.ensure_shape(pixels, (None, None, num_channels))


def is_plain_jpeg(encoded):
    """Whether bytes begin as those of a JPEG file without any metadata."""
    head = tf.strings.join([tf.strings.substr(encoded, 0, 22), bytes(22)])
    # Its tables follow at once, or the 18 bytes of JFIF.
    return tf.image.is_jpeg(encoded) & (
        (tf.strings.substr(head, 2, 2) == TABLES)
        | (tf.strings.substr(head, 20, 2) == TABLES)
    )


def upright(pixels, orientation):
    """Pixels as an EXIF orientation says that they are to be shown.

    Args:
        pixels: `(height, width, channels)`.
        orientation: int32 from 1 to 8.
    """
    num_channels = pixels.shape[-1]
    places = [[0, 1, 2], [1, 0, 2]]
    swaps = tf.cast(orientation >= 5, tf.int32)
    pixels = tf.transpose(pixels, tf.gather(places, swaps))
    # The axes that run backward: of 1 to 4, and of 5 to 8.
    backward = tf.gather(
        [
            [False, False, False],
            [False, True, False],
            [True, True, False],
            [True, False, False],
            [False, False, False],
            [False, True, False],
            [True, True, False],
            [True, False, False],
        ],
        orientation - 1,
    )
    pixels = tf.raw_ops.Reverse(tensor=pixels, dims=backward)
    return tf.ensure_shape(pixels, (None, None, num_channels))
