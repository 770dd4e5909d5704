"""Reads, decodes and rotates image files in a graph.

Nothing here calls Python, for which threads of an input pipeline would wait.
"""

import tensorflow as tf

ANIMATED_WEBP = "it is an animated WebP"
# Marker of the tables of a JPEG file.
JPEG_TABLES = b"\xff\xdb"
# EXIF is a TIFF header in a segment of a JPEG, or in a chunk of a PNG or WebP:
# the byte order, the offset of a directory, and there the number of entries of
# 12 bytes, each with a tag, a type, a count and a value.
EXIF_ORIENTATION_TAG, EXIF_SHORT = 0x0112, 3
EXIF_ENTRY_BYTES = 12
# Number of bytes that are searched for EXIF; in a WebP it may be at the end.
EXIF_SEARCH_BYTES = 2**17
# Number of bytes of the header that are read.
EXIF_HEADER_BYTES = 2**16
# Everything up to the header. Bytes above 127 cannot be part of RE2 patterns.
EXIF_START = r"(?s)^\C*?(?:Exif\x00\x00|eXIf|EXIF\C{4}(?:Exif\x00\x00)?)"


def read_bytes(path):
    """Returns the bytes of a file, empty if it cannot be read."""
    good = tf.data.Dataset.from_tensors(path).map(tf.io.read_file)
    none = tf.data.Dataset.from_tensors(b"")
    return good.ignore_errors().concatenate(none).take(1).get_single_element()


def is_webp(encoded):
    """Returns True for the bytes of a WebP file."""
    return tf.strings.regex_full_match(
        tf.strings.substr(encoded, 0, 12), r"RIFF\C{4}WEBP"
    )


def is_animated_webp(encoded):
    """Returns True for the bytes of a WebP file with several images.

    Decoding them corrupts TensorFlow's memory.
    """
    head = tf.strings.substr(encoded, 0, 21)
    is_extended = tf.strings.regex_full_match(head, r"RIFF\C{4}WEBPVP8X\C{5}")
    flags = tf.strings.substr(tf.strings.join([head, bytes(21)]), 20, 1)
    return is_extended & (tf.io.decode_raw(flags, tf.uint8)[0] & 2 > 0)


def decode(encoded, num_channels):
    """Decodes the bytes of a file to uint8 `(height, width, num_channels)`.

    Supports JPEG, PNG, GIF and BMP, and WebP if TensorFlow does. Returns the
    first image of an animated GIF; an animated WebP raises an error. An alpha
    channel is dropped.
    """

    def decode_webp():
        is_valid = ~is_animated_webp(encoded)
        check = tf.debugging.Assert(is_valid, [ANIMATED_WEBP])
        with tf.control_dependencies([check]):
            # TensorFlow cannot change the number of channels of a WebP.
            pixels = tf.io.decode_image(encoded, 0, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, None))[..., :3]
        if num_channels == 1:
            return tf.image.rgb_to_grayscale(pixels)
        return pixels

    def decode_other():
        pixels = tf.io.decode_image(
            encoded, num_channels, expand_animations=False
        )
        return tf.ensure_shape(pixels, (None, None, num_channels))

    def decode_palette_bmp():
        indices = tf.cast(decode_other()[..., 0], tf.int32)
        pixels = tf.gather(_palette(encoded), indices)
        return tf.ensure_shape(pixels, (None, None, 3))

    branches = []
    if hasattr(tf.io, "decode_webp"):
        branches.append((is_webp(encoded), decode_webp))
    if num_channels == 3:
        branches.append((_has_palette(encoded), decode_palette_bmp))
    pixels = (
        tf.case(branches, default=decode_other) if branches else decode_other()
    )
    return tf.ensure_shape(pixels, (None, None, num_channels))


def _has_palette(encoded):
    """Returns True for an 8-bit BMP, whose palette TensorFlow ignores."""
    head = tf.strings.substr(encoded, 0, 30)
    return tf.strings.regex_full_match(head, r"BM\C{26}\x08\x00")


def _palette(encoded):
    """Returns the colors `(256, 3)` of an 8-bit BMP."""
    # Four bytes per color, blue first, after two headers of 14 bytes and more.
    raw = tf.io.decode_raw(encoded, tf.uint8)
    begin = 14 + tf.cast(raw[14], tf.int32)
    colors = tf.pad(raw[begin : begin + 1024], [[0, 1024]])[:1024]
    return tf.reshape(colors, (256, 4))[:, 2::-1]


def is_plain_jpeg(encoded):
    """Returns True for the bytes of a JPEG file without metadata."""
    head = tf.strings.join([tf.strings.substr(encoded, 0, 22), bytes(22)])
    # The tables come first, or follow the 18 bytes of JFIF.
    return tf.image.is_jpeg(encoded) & (
        (tf.strings.substr(head, 2, 2) == JPEG_TABLES)
        | (tf.strings.substr(head, 20, 2) == JPEG_TABLES)
    )


def rotate_upright(pixels, orientation):
    """Flips and transposes pixels as an EXIF orientation requires.

    Args:
        pixels: `(height, width, channels)`.
        orientation: int32 from 1 to 8.
    """
    num_channels = pixels.shape[-1]
    permutations = [[0, 1, 2], [1, 0, 2]]
    is_transposed = tf.cast(orientation >= 5, tf.int32)
    pixels = tf.transpose(pixels, tf.gather(permutations, is_transposed))
    # Axes to reverse for each orientation.
    reversed_axes = tf.gather(
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
    pixels = tf.raw_ops.Reverse(tensor=pixels, dims=reversed_axes)
    return tf.ensure_shape(pixels, (None, None, num_channels))


def read_orientation(encoded):
    """Reads the EXIF orientation of a file's bytes: int32 from 1 to 8.

    Returns 1 if it is missing or invalid.
    """
    # A RIFF file is a WebP.
    is_riff = tf.strings.regex_full_match(
        tf.strings.substr(encoded, 0, 4), "RIFF"
    )
    length = tf.where(is_riff, tf.strings.length(encoded), EXIF_SEARCH_BYTES)
    data = tf.strings.substr(encoded, 0, length)
    header = tf.strings.regex_replace(
        data, EXIF_START, "", replace_global=False
    )
    header = tf.strings.substr(header, 0, EXIF_HEADER_BYTES)
    is_exif = tf.strings.regex_full_match(
        header, r"(?:II\x2a\x00|MM\x00\x2a)\C{4}\C*"
    )
    return tf.cond(is_exif, lambda: _parse_exif_header(header), lambda: 1)


def _parse_exif_header(header):
    raw = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int64)
    is_little = raw[0] == ord("I")

    def number(columns):
        """Converts the last axis of bytes to integers."""
        last = tf.shape(columns)[-1]
        powers = tf.bitwise.left_shift(
            tf.constant(1, tf.int64), 8 * tf.range(last, dtype=tf.int64)
        )
        powers = tf.where(is_little, powers, powers[::-1])
        return tf.reduce_sum(columns * powers, axis=-1)

    begin = number(raw[4:8])
    directory = raw[tf.minimum(begin, EXIF_HEADER_BYTES) :]
    # Padding for a directory beyond the end.
    directory = tf.concat([directory, tf.zeros(2, tf.int64)], axis=0)
    num_available = (tf.size(directory, tf.int64) - 4) // EXIF_ENTRY_BYTES
    count = tf.clip_by_value(
        number(directory[:2]), 0, tf.maximum(num_available, 0)
    )
    entries = tf.reshape(
        directory[2 : 2 + EXIF_ENTRY_BYTES * count], (-1, EXIF_ENTRY_BYTES)
    )
    values = number(entries[:, 8:10])
    is_orientation = (
        (number(entries[:, :2]) == EXIF_ORIENTATION_TAG)
        & (number(entries[:, 2:4]) == EXIF_SHORT)
        & (values >= 1)
        & (values <= 8)
    )
    found = tf.boolean_mask(values, is_orientation)
    return tf.cast(tf.concat([found, [1]], axis=0)[0], tf.int32)
