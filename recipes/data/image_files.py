"""Image files as bytes: read, decoded and turned upright, in a graph.

There is no Python in it, which threads of an input pipeline would wait for.
"""

import tensorflow as tf

ANIMATED_WEBP = "it is an animated WebP"
# What the tables of a JPEG file begin with.
JPEG_TABLES = b"\xff\xdb"


def read_bytes(path):
    """The bytes of a file, none where it cannot be read."""
    good = tf.data.Dataset.from_tensors(path).map(tf.io.read_file)
    none = tf.data.Dataset.from_tensors(b"")
    return good.ignore_errors().concatenate(none).take(1).get_single_element()


def is_webp(encoded):
    """Whether bytes are those of a WebP file."""
    return tf.strings.regex_full_match(
        tf.strings.substr(encoded, 0, 12), r"RIFF\C{4}WEBP"
    )


def is_animated_webp(encoded):
    """Whether bytes are those of a WebP file of several images.

    TensorFlow writes beyond its memory where it decodes them.
    """
    head = tf.strings.substr(encoded, 0, 21)
    is_extended = tf.strings.regex_full_match(head, r"RIFF\C{4}WEBPVP8X\C{5}")
    flags = tf.strings.substr(tf.strings.join([head, bytes(21)]), 20, 1)
    return is_extended & (tf.io.decode_raw(flags, tf.uint8)[0] & 2 > 0)


def decode(encoded, num_channels):
    """Pixels uint8 `(height, width, num_channels)` of a file's bytes.

    JPEG, PNG, GIF and BMP, and WebP where TensorFlow decodes it. Of an
    animated GIF it is the first image; an animated WebP is an error. An alpha
    channel is left out.
    """

    def webp():
        moves = is_animated_webp(encoded)
        with tf.control_dependencies(
            [tf.debugging.Assert(~moves, [ANIMATED_WEBP])]
        ):
            # It refuses to change the number of channels.
            pixels = tf.io.decode_image(encoded, 0, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, None))[..., :3]
        if num_channels == 1:
            return tf.image.rgb_to_grayscale(pixels)
        return pixels

    def other():
        pixels = tf.io.decode_image(
            encoded, num_channels, expand_animations=False
        )
        return tf.ensure_shape(pixels, (None, None, num_channels))

    def with_palette():
        indices = tf.cast(other()[..., 0], tf.int32)
        pixels = tf.gather(_palette(encoded), indices)
        return tf.ensure_shape(pixels, (None, None, 3))

    branches = []
    if hasattr(tf.io, "decode_webp"):
        branches.append((is_webp(encoded), webp))
    if num_channels == 3:
        branches.append((_has_palette(encoded), with_palette))
    pixels = tf.case(branches, default=other) if branches else other()
    return tf.ensure_shape(pixels, (None, None, num_channels))


def _has_palette(encoded):
    """Whether bytes are a BMP of 8 bits: TensorFlow ignores its palette."""
    head = tf.strings.substr(encoded, 0, 30)
    return tf.strings.regex_full_match(head, r"BM\C{26}\x08\x00")


def _palette(encoded):
    """The colors `(256, 3)` of a BMP of 8 bits."""
    # Four bytes each, blue first, behind two headers of 14 bytes and more.
    raw = tf.io.decode_raw(encoded, tf.uint8)
    begin = 14 + tf.cast(raw[14], tf.int32)
    colors = tf.pad(raw[begin : begin + 1024], [[0, 1024]])[:1024]
    return tf.reshape(colors, (256, 4))[:, 2::-1]


def is_plain_jpeg(encoded):
    """Whether bytes begin as those of a JPEG file without any metadata."""
    head = tf.strings.join([tf.strings.substr(encoded, 0, 22), bytes(22)])
    # Its tables follow at once, or the 18 bytes of JFIF.
    return tf.image.is_jpeg(encoded) & (
        (tf.strings.substr(head, 2, 2) == JPEG_TABLES)
        | (tf.strings.substr(head, 20, 2) == JPEG_TABLES)
    )


def rotate_upright(pixels, orientation):
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
