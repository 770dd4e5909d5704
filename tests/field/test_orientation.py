"""The EXIF orientation of images is applied as by Pillow."""

import io

import keras
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import tensorflow as tf  # noqa: E402

from recipes.data import image_files  # noqa: E402
from recipes.data import input_pipeline  # noqa: E402
from tests.recipes.small_runs import TASK  # noqa: E402
from tests.recipes.small_runs import make_config  # noqa: E402

TAG = 0x0112


def picture(height=24, width=32):
    y, x = np.mgrid[:height, :width]
    columns = [x * 255 // width, y * 255 // height, (x > y) * 200]
    return PIL.Image.fromarray(np.stack(columns, -1).astype(np.uint8))


def encode(kind, orientation=None, **options):
    tags = PIL.Image.Exif()
    tags[0x010F] = "a camera"
    if orientation is not None:
        tags[TAG] = orientation
    buffer = io.BytesIO()
    picture().save(buffer, kind, exif=tags, **options)
    return buffer.getvalue()


def upright(content):
    """Returns the pixels as rotated by Pillow."""
    image = PIL.Image.open(io.BytesIO(content))
    return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))


def decode_upright(content):
    pixels = image_files.decode(content, 3)
    return image_files.rotate_upright(
        pixels, image_files.read_orientation(content)
    ).numpy()


# https://github.com/facebookresearch/detectron2/issues/788
# https://github.com/HumanSignal/label-studio/issues/6608
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_rotated_images_equal_pillow(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(kind, orientation, **options)
    expected = upright(content)
    actual = decode_upright(content)
    assert actual.shape == expected.shape
    # JPEG decoders round differently.
    np.testing.assert_allclose(
        actual.astype(int), expected, atol=4 if kind == "JPEG" else 0
    )


@pytest.mark.parametrize("profile", [0, 20_000])
@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_orientation_tag_is_found_at_any_position(order, profile):
    kind = "<" if order == b"II" else ">"
    endian = "little" if order == b"II" else "big"
    # The directory has an unusual offset, and the tag is not the first.
    entries = [(0x0100, 3, 1, 32), (TAG, 3, 1, 6), (0x0132, 3, 1, 1)]
    directory = len(entries).to_bytes(2, endian)
    for tag, form, count, value in entries:
        directory += np.array([tag, form], f"{kind}u2").tobytes()
        directory += np.array([count], f"{kind}u4").tobytes()
        directory += np.array([value, 0], f"{kind}u2").tobytes()
    header = order + (42).to_bytes(2, endian) + (30).to_bytes(4, endian)
    tags = b"Exif\0\0" + header + bytes(22) + directory + bytes(4)
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG", exif=tags, icc_profile=bytes(profile))
    content = buffer.getvalue()
    assert PIL.Image.open(io.BytesIO(content)).getexif()[TAG] == 6
    assert int(image_files.read_orientation(content)) == 6


def test_invalid_exif_does_not_rotate_the_image():
    whole = encode("JPEG", 6)
    begin = whole.index(b"Exif")
    generator = np.random.default_rng(0)
    for place in range(begin, begin + 60):
        for value in (0, 255, *generator.integers(0, 256, 2)):
            content = bytearray(whole)
            content[place] = value
            assert 1 <= int(image_files.read_orientation(bytes(content))) <= 8
    for length in range(0, begin + 60, 3):
        assert 1 <= int(image_files.read_orientation(whole[:length])) <= 8
    for orientation in (0, 9, 255, 65535):
        content = encode("JPEG", orientation)
        assert int(image_files.read_orientation(content)) == 1


@pytest.mark.parametrize("augmentation", ["inception", "crop_flip"])
def test_rotated_files_give_the_same_examples(tmp_path, augmentation):
    """Rotated files give the same examples as upright files."""
    made = {}
    for name in ("rotated", "upright"):
        for split in ("train", "val"):
            folder = tmp_path / name / split / "a"
            folder.mkdir(parents=True)
            for orientation in range(1, 9):
                content = encode("PNG", orientation)
                path = folder / f"{orientation}.png"
                if name == "rotated":
                    path.write_bytes(content)
                else:
                    PIL.Image.fromarray(upright(content)).save(path)
        made[name] = input_pipeline.make_data(
            make_config(
                dataset=f"folder:{tmp_path / name}",
                global_batch_size=8,
                image_size=16,
                augmentation=augmentation,
            ),
            TASK,
        )
    for split in ("train", "evaluation"):
        batches = [
            next(iter(each.train(0) if split == "train" else each.evaluation()))
            for each in made.values()
        ]
        np.testing.assert_array_equal(batches[0][0], batches[1][0])


def test_rotated_jpegs_are_decoded_completely(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for orientation in range(1, 9):
            path = tmp_path / split / "a" / f"{orientation}.jpg"
            path.write_bytes(encode("JPEG", orientation, quality=95))
    config = make_config(
        dataset=f"folder:{tmp_path}", global_batch_size=8, image_size=24
    )
    images, _, weights = next(
        iter(input_pipeline.make_data(config, TASK).evaluation())
    )
    assert weights.numpy().all()
    for orientation, image in enumerate(images.numpy(), start=1):
        pixels = upright(encode("JPEG", orientation, quality=95))
        height, width = pixels.shape[:2]
        side = round(min(height, width) * 0.875)
        top, left = (height - side) // 2, (width - side) // 2
        crop = pixels[top : top + side, left : left + side]
        expected = tf.image.resize(crop, (24, 24)).numpy() / 127.5 - 1.0
        np.testing.assert_allclose(image, expected, atol=0.1)
