"""The EXIF orientation of an image file, read in a graph.

EXIF is a TIFF header, in a JPEG's segment, a PNG's or a WebP's chunk: the byte
order, the offset of a directory, and there the number of its entries of 12
bytes: tag, type, count, value.
"""

import tensorflow as tf

# How far EXIF is looked for; a WebP may have it at its end.
EXIF_SEARCH_BYTES = 2**17
# What stands before the header. Nonzero bytes above 127 are no pattern of RE2.
EXIF_START = r"(?s)^\C*?(?:Exif\x00\x00|eXIf|EXIF\C{4}(?:Exif\x00\x00)?)"
# Bytes of the header that are looked at.
EXIF_HEADER_BYTES = 2**16
EXIF_ENTRY_BYTES = 12
EXIF_ORIENTATION_TAG, EXIF_SHORT = 0x0112, 3


def read_orientation(encoded):
    """The orientation of an image file's bytes: int32 from 1 to 8.

    1 where it is not said, or is no such number.
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
        """The numbers that rows of bytes are."""
        last = tf.shape(columns)[-1]
        powers = tf.bitwise.left_shift(
            tf.constant(1, tf.int64), 8 * tf.range(last, dtype=tf.int64)
        )
        powers = tf.where(is_little, powers, powers[::-1])
        return tf.reduce_sum(columns * powers, axis=-1)

    begin = number(raw[4:8])
    directory = raw[tf.minimum(begin, EXIF_HEADER_BYTES) :]
    # Nothing is past the end.
    directory = tf.concat([directory, tf.zeros(2, tf.int64)], axis=0)
    there = (tf.size(directory, tf.int64) - 4) // EXIF_ENTRY_BYTES
    count = tf.clip_by_value(number(directory[:2]), 0, tf.maximum(there, 0))
    entries = tf.reshape(
        directory[2 : 2 + EXIF_ENTRY_BYTES * count], (-1, EXIF_ENTRY_BYTES)
    )
    values = number(entries[:, 8:10])
    is_good = (
        (number(entries[:, :2]) == EXIF_ORIENTATION_TAG)
        & (number(entries[:, 2:4]) == EXIF_SHORT)
        & (values >= 1)
        & (values <= 8)
    )
    found = tf.boolean_mask(values, is_good)
    return tf.cast(tf.concat([found, [1]], axis=0)[0], tf.int32)
