import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from absl import logging

from recipes.data import input_pipeline
from recipes.data.decode_errors import BadImages
from recipes.errors import RecipeError
from recipes.training import runner
from tests import tfds_archives
from tests.recipes import tfds_sets
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

GOOD = tfds_archives.jpeg(0, 0, 40, 48)


def encode_with_pillow(kind, mode, **options):
    """Encodes an image file with another library than TensorFlow."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    image = PIL.Image.fromarray(noise).convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_animation():
    frames = [PIL.Image.new("RGB", (48, 40), c) for c in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def make_16_bit_png():
    noise = np.random.default_rng(0).integers(0, 2**16, (40, 48, 3), np.uint16)
    return tf.io.encode_png(noise).numpy()


# Content of a file, and the reported reason.
BAD = {
    "empty": (b"", "it is empty"),
    "text": (b"<html>404 not found</html>", "Unknown image file format"),
    "cut_off": (GOOD[: len(GOOD) // 2], "Invalid JPEG data"),
    "header_alone": (GOOD[:20], "Invalid JPEG data"),
    "magic_alone": (GOOD[:3], "Invalid JPEG data"),
    "png_cut_off": (make_16_bit_png()[:200], "Invalid PNG data, size 200"),
    "gif_cut_off": (make_animation()[:15], "Invalid GIF data"),
}
ODD = {
    "gif": make_animation(),
    "png_of_16_bits": make_16_bit_png(),
    "cmyk": encode_with_pillow("JPEG", "CMYK"),
    "gray": encode_with_pillow("JPEG", "L"),
    "gray_png": encode_with_pillow("PNG", "LA"),
    "palette_png": encode_with_pillow("PNG", "P"),
    "progressive": encode_with_pillow("JPEG", "RGB", progressive=True),
    "bmp": encode_with_pillow("BMP", "RGB"),
}


def make_data(root, content, on_bad_image, split="train", **flags):
    """Opens a folder in which one file has the given content."""
    if not root.exists():
        tfds_archives.folder(root, num_train=4, num_eval=4)
    path = root / split / "label2" / "1.jpg"
    path.write_bytes(content)
    config = make_config(
        dataset=f"folder:{root}",
        global_batch_size=8,
        image_size=16,
        train_steps=4,
        on_bad_image=on_bad_image,
        **flags,
    )
    return path, config, input_pipeline.make_data(config, TASK)


def join_batches(batches):
    columns = zip(*batches.as_numpy_iterator(), strict=True)
    return [np.concatenate(column) for column in columns]


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A file, and batches that fail if it is bad."""
    root = tmp_path_factory.mktemp("failing") / "set"
    path, config, made = make_data(root, GOOD, "fail")
    return path, config, made, made.train(0)


@pytest.mark.parametrize("kind", BAD)
def test_bad_image_is_reported_with_name_and_reason(failing, kind):
    content, reason = BAD[kind]
    path, config, made, batches = failing
    path.write_bytes(content)
    message = (
        f"{config.dataset} cannot be decoded: {reason}[^{{}}[]*. In {path}. "
        "Remove or fix it, or skip such images with --on_bad_image=skip"
    )
    with pytest.raises(RecipeError, match=message):
        with made.bad_images.explain_errors():
            list(batches)


def test_dry_run_reports_a_bad_image(tmp_path):
    path, config, _ = make_data(tmp_path / "set", BAD["cut_off"][0], "fail")
    config = dataclasses.replace(
        config, dry_run=True, workdir=str(tmp_path / "run")
    )
    with pytest.raises(RecipeError, match=f"cannot be decoded: .* In {path}"):
        runner.run(config, TASK)


@pytest.fixture(scope="module")
def good_batches(tmp_path_factory):
    """Images and labels of two epochs without a bad image."""
    root = tmp_path_factory.mktemp("good") / "set"
    _, _, made = make_data(root, GOOD, "skip")
    images, labels, weights = join_batches(made.train(0))
    assert weights.all() and not made.bad_images.names()
    return images, labels


@pytest.mark.parametrize("kind", ["empty", "cut_off", "png_cut_off"])
def test_skipped_image_is_zeros_of_weight_0(
    tmp_path, kind, good_batches, monkeypatch
):
    warnings = []
    monkeypatch.setattr(
        logging, "warning", lambda *parts: warnings.append(parts)
    )
    images, labels = good_batches
    path, _, made = make_data(tmp_path / "set", BAD[kind][0], "skip")
    skipped_images, skipped_labels, skipped_weights = join_batches(
        made.train(0)
    )

    # The image comes twice in two epochs; all other examples are unchanged.
    (bad,) = np.nonzero(skipped_weights == 0)
    assert len(bad) == 2
    assert set(labels[bad]) == {2}
    assert not skipped_images[bad].any()
    np.testing.assert_array_equal(skipped_labels, labels)
    np.testing.assert_array_equal(
        np.delete(skipped_images, bad, 0), np.delete(images, bad, 0)
    )
    assert made.bad_images.names() == [str(path)]
    assert len(warnings) == 1


def test_unusual_image_files_are_decoded(tmp_path):
    path, config, _ = make_data(tmp_path / "set", GOOD, "fail")
    for kind, content in ODD.items():
        path.with_name(f"{kind}.jpg").write_bytes(content)
    made = input_pipeline.make_data(config, TASK)
    # Three batches are an epoch; an error would name the file.
    images, labels, weights = join_batches(made.train(0).take(3))
    assert sum(labels == 2) == 4 + len(ODD)
    assert weights.all()
    assert np.isfinite(images).all()


def test_evaluation_skips_bad_images(tmp_path):
    path, _, made = make_data(tmp_path / "set", b"", "skip", "validation")
    assert join_batches(made.evaluation())[2].sum() == made.num_eval - 1
    assert made.bad_images.names() == [str(path)]
    _, _, made = make_data(tmp_path / "set", b"", "fail", "validation")
    with pytest.raises(RecipeError, match=f"it is empty. In {path}"):
        with made.bad_images.explain_errors():
            list(made.evaluation())


def test_bad_tfds_example_is_reported_with_its_record(tmp_path):
    images = tfds_sets.jpegs(8)
    images[4] = b"no image"
    folder = tfds_sets.write(tmp_path, images, num_eval=2)
    config = make_config(
        dataset=tfds_sets.NAME,
        data_dir=str(tmp_path),
        global_batch_size=6,
        image_size=16,
        train_steps=1,
    )
    file = folder / f"{tfds_sets.NAME}-train.tfrecord-00001-of-00003"
    name = (
        f"Unknown image file format.*In example 3 of train, record 1 of {file}"
    )
    made = input_pipeline.make_data(config, TASK)
    with pytest.raises(RecipeError, match=name):
        with made.bad_images.explain_errors():
            list(made.train(0))


def test_other_tensorflow_errors_are_not_changed():
    with pytest.raises(tf.errors.InvalidArgumentError):
        with BadImages("digits", "fail").explain_errors():
            tf.io.decode_image(b"")
