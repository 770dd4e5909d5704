"""A run leaves no state in the process."""

import ast
import pathlib
import random

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import config as tf_config  # noqa: E402

from recipes.data import input_pipeline  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.training import runner  # noqa: E402
from tests import tfds_archives  # noqa: E402
from tests.recipes.small_runs import TASK  # noqa: E402
from tests.recipes.small_runs import make_config  # noqa: E402
from tests.recipes.small_runs import run  # noqa: E402
from tests.recipes.small_runs import summary  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent.parent


def folder(root, bad=()):
    """Writes 4 images of each of 3 classes; bad files are not images."""
    tfds_archives.folder(root, num_train=4, num_eval=1)
    paths = [root / "train" / f"label{label}" / "1.jpg" for label in bad]
    for path in paths:
        path.write_bytes(b"no image")
    return {
        "dataset": f"folder:{root}",
        "global_batch_size": 8,
        "image_size": 16,
        "on_bad_image": "skip",
    }, [str(path) for path in paths]


def make(root, bad=(), **flags):
    settings, paths = folder(root, bad)
    return input_pipeline.make_data(
        make_config(**{**settings, **flags}), TASK
    ), paths


def test_each_run_has_its_own_bad_images(tmp_path):
    first, names = make(tmp_path / "first", bad=(1,), train_steps=4)
    second, others = make(tmp_path / "second", bad=(0, 2), train_steps=4)
    good, _ = make(tmp_path / "good", train_steps=4)
    # TensorFlow threads make the batches of both runs concurrently.
    for _ in zip(first.train(0), second.train(0), good.train(0), strict=True):
        pass
    assert first.bad_images.names() == names
    assert sorted(second.bad_images.names()) == sorted(others)
    assert good.bad_images.names() == []
    # A new run starts with an empty list.
    again, _ = make(tmp_path / "again", bad=(1,))
    assert again.bad_images.names() == []


def test_errors_of_one_run_do_not_reach_another(tmp_path):
    bad, (name,) = make(tmp_path / "bad", bad=(1,), on_bad_image="fail")
    good, _ = make(tmp_path / "good", on_bad_image="fail")
    with pytest.raises(tf.errors.OpError):
        list(bad.train(0))
    with pytest.raises(tf.errors.InvalidArgumentError):
        with good.bad_images.explain_errors():
            tf.io.decode_image(b"")
    with pytest.raises(RecipeError, match=name):
        with bad.bad_images.explain_errors():
            list(bad.train(0))
    # Images recorded earlier do not explain unrelated errors.
    with pytest.raises(tf.errors.InvalidArgumentError):
        with bad.bad_images.explain_errors():
            tf.io.decode_image(b"")


def test_finished_run_keeps_its_list_of_bad_images(tmp_path, capsys):
    """Repeating the command reads no images and must keep the list."""
    settings, paths = folder(tmp_path / "set", bad=(1,))
    flags = {**settings, "train_steps": 2, "mode": "train"}
    assert run(tmp_path / "run", **flags)[0]["bad_images"] == paths
    assert f"left out 1 image (--on_bad_image=skip): {paths[0]}" in (
        capsys.readouterr().out
    )
    runner.run(make_config(**flags, workdir=str(tmp_path / "run")), TASK)
    assert "training ended before" in capsys.readouterr().out
    assert summary(tmp_path / "run")["bad_images"] == paths


def test_global_state_is_restored(tmp_path):
    random.seed(7)
    np.random.seed(7)
    expected = random.Random(7).random(), np.random.RandomState(7).uniform()
    run(
        tmp_path / "one",
        precision="mixed_bfloat16",
        deterministic=True,
        train_steps=1,
        mode="train",
    )
    assert keras.config.dtype_policy().name == "float32"
    assert not tf_config.is_op_determinism_enabled()
    assert (random.random(), np.random.uniform()) == expected


def test_failed_run_restores_global_state(tmp_path):
    with pytest.raises(RecipeError, match="not finite"):
        run(
            tmp_path / "one",
            precision="mixed_bfloat16",
            deterministic=True,
            learning_rate=1e38,
            optimizer="adamw",
            train_steps=40,
            profile_steps="1,40",
            mode="train",
        )
    assert keras.config.dtype_policy().name == "float32"
    assert not tf_config.is_op_determinism_enabled()
    # TensorFlow cannot start a second profiler.
    tf.profiler.experimental.start(str(tmp_path / "profile"))
    tf.profiler.experimental.stop(save=False)


def test_profile_beyond_the_last_step_is_written(tmp_path):
    run(tmp_path, train_steps=2, profile_steps="2,99", mode="train")
    assert list(tmp_path.glob("events/plugins/profile/*/*.xplane.pb"))
    tf.profiler.experimental.start(str(tmp_path / "profile"))
    tf.profiler.experimental.stop(save=False)


def test_no_function_assigns_module_globals():
    """Only the scopes that count themselves assign a global."""
    found = [
        path.relative_to(ROOT).as_posix()
        for name in ("recipes", "keras_norm")
        for path in sorted((ROOT / name).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Global)
    ]
    assert found == ["keras_norm/conversion/norm_scope.py"]
