"""Image files of users are decoded as by Pillow."""

import io

import keras
import numpy as np
import PIL.Image
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from recipes.data import decode_errors  # noqa: E402
from recipes.data import image_files  # noqa: E402
from tests.field.test_orientation import picture  # noqa: E402


def make_alpha_image(mode="RGBA"):
    image = picture().convert("RGBA")
    image.putalpha(picture().convert("L"))
    return image.convert(mode)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


MOVING = {"save_all": True, "append_images": [picture().rotate(180)]}
# Function, file format and options. Pixels equal Pillow's except for JPEG.
KINDS = {
    "jpeg": (picture, "JPEG", {}),
    "gray_jpeg": (lambda: picture().convert("L"), "JPEG", {}),
    "cmyk_jpeg": (lambda: picture().convert("CMYK"), "JPEG", {}),
    "gray_png": (lambda: picture().convert("L"), "PNG", {}),
    "alpha_png": (make_alpha_image, "PNG", {}),
    "gray_alpha_png": (lambda: make_alpha_image("LA"), "PNG", {}),
    "palette_png": (lambda: picture().quantize(64), "PNG", {}),
    "bits_png": (lambda: picture().convert("1"), "PNG", {}),
    "gif": (lambda: picture().quantize(64), "GIF", {}),
    "moving_gif": (lambda: picture().quantize(64), "GIF", MOVING),
    "bmp": (picture, "BMP", {}),
    "gray_bmp": (lambda: picture().convert("L"), "BMP", {}),
    "palette_bmp": (lambda: picture().quantize(64), "BMP", {}),
    "alpha_bmp": (make_alpha_image, "BMP", {}),
    "webp": (picture, "WEBP", {"lossless": True}),
    "alpha_webp": (make_alpha_image, "WEBP", {"lossless": True}),
}


@pytest.mark.parametrize("name", KINDS)
def test_decoded_pixels_equal_pillow(name):
    make, kind, options = KINDS[name]
    content = encode(make(), kind, **options)
    with PIL.Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    actual = image_files.decode(content, 3).numpy().astype(int)
    # JPEG decoders round differently.
    tolerance = 4 if kind == "JPEG" else 0
    np.testing.assert_allclose(actual, expected, atol=tolerance)


def test_animated_webp_raises_an_error():
    """TensorFlow 2.21 corrupts its memory when it decodes one."""
    content = encode(picture(), "WEBP", **MOVING, lossless=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        image_files.decode(content, 3)
    reason = decode_errors._decode_error(content, (0, 0))
    assert reason == "cannot be decoded: it is an animated WebP"


def test_missing_file_is_read_as_empty_bytes(tmp_path):
    path = tmp_path / "x"
    assert image_files.read_bytes(str(path)).numpy() == b""
    path.write_bytes(b"an image")
    assert image_files.read_bytes(str(path)).numpy() == b"an image"
    assert image_files.read_bytes(str(tmp_path)).numpy() == b""
