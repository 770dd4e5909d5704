"""Tests of exported detectors against the Keras model, and of errors."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

import keras_norm
from recipes.data import input_pipeline
from recipes.detection import build
from recipes.detection import decoder
from recipes.detection import export
from recipes.errors import RecipeError
from recipes.export import formats
from tests.recipes.detection import small_detector

missing = [
    package
    for module, package in formats.FORMATS["onnx"].packages.items()
    if importlib.util.find_spec(module) is None
]
needs_onnx = pytest.mark.skipif(missing, reason=f"not installed: {missing}")
ONNX = [
    pytest.param(
        "onnx",
        norm,
        marks=[needs_onnx] + [pytest.mark.long] * (norm != "frn"),
    )
    for norm in keras_norm.names()
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_detector.folder(tmp_path_factory.mktemp("drawn"), 4, 3)


def network(dataset, folder, norm="frn", **flags):
    """Builds a detector with some high scores, and its config and data."""
    arguments = {"groups": 4} if norm == "gn" else {}
    folder.mkdir(exist_ok=True)
    # Instance norm rejects maps of a single position.
    start = small_detector.classifier(
        folder / "start.keras", norm, 64, **arguments
    )
    config = small_detector.make_config(
        dataset=dataset,
        workdir=str(folder),
        init_model=start,
        norm=norm,
        global_batch_size=4,
        norm_kwargs=arguments,
        **flags,
    )
    made = input_pipeline.make_data(config, small_detector.TASK)
    model = build.build_detector(config, made)
    generator = np.random.default_rng(2)
    for head in ("class_head", "box_head"):
        kernel, bias = model.get_layer(f"{head}_out").weights
        kernel.assign(generator.normal(0, 0.1, kernel.shape))
        bias.assign(generator.normal(-2, 0.5, bias.shape) * (head[0] == "c"))
    return config, made, model


def images(count):
    generator = np.random.default_rng(count)
    return generator.uniform(-1, 1, (count, 64, 64, 3)).astype("float32")


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("saved_model", "frn"),
        pytest.param("saved_model", "rbn", marks=pytest.mark.long),
        *ONNX,
    ],
)
def test_file_decodes_boxes_and_applies_nms(dataset, tmp_path, name, norm):
    config, made, model = network(
        dataset, tmp_path, norm, export_format=name, max_detections=20
    )
    line = export.export_detector(config, made, model)
    folder = tmp_path / "export" / name
    assert line.startswith(f"export: {folder}, ")
    chosen = formats.FORMATS[name]
    run = chosen.load(str(folder / chosen.file))
    layer = decoder.make_decoder(config)
    for count in (1, 2, 5):
        expected = layer(model(images(count), training=False))
        expected = {k: v.numpy() for k, v in expected.items()}
        found = run(images(count))
        assert set(found) == set(expected)
        assert expected["num_detections"].sum() > 2 * count
        assert (np.diff(found["scores"], axis=1) <= 0).all()
        for key, values in expected.items():
            assert found[key].shape == values.shape
        assert (
            export.largest_difference(found, expected, (count, 64, 64, 3), 0.05)
            < 1e-4
        )

    facts = json.loads((folder / "export.json").read_text())
    assert facts["outputs"] == {
        "boxes": [None, 20, 4],
        "scores": [None, 20],
        "classes": [None, 20],
        "num_detections": [None],
    }
    wanted = {
        "format": name,
        "input": "images",
        "input_shape": [None, 64, 64, 3],
        "box_format": "ymin, xmin, ymax, xmax in pixels of the input",
        "class_names": ["category 1", "category 3", "category 18"],
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "trained_in": ["float32"],
        "preprocessing": "RGB in [-1, 1], channels last",
    }
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["compared_images"] == 1 + 3
    assert facts["compared_detections"] > 8
    assert facts["largest_difference"] <= facts["allowed_difference"]


def shifted(found):
    return {**found, "boxes": found["boxes"] + 1.0}


def relabelled(found):
    return {**found, "classes": found["classes"] + 1.0}


def shortened(found):
    return {**found, "num_detections": found["num_detections"] - 1.0}


@pytest.mark.parametrize(
    ("wrong", "number"),
    [(shifted, r"1.6e-02"), (relabelled, "inf"), (shortened, "")],
)
def test_wrong_file_is_rejected_and_removed(
    dataset, tmp_path, monkeypatch, wrong, number
):
    config, made, model = network(dataset, tmp_path, max_detections=500)
    chosen = formats.FORMATS["saved_model"]

    class Written:
        """Writes a placeholder; the content is tested above."""

        def write(self, built, path):
            self.network = built

        def load(self, path):
            def run(x):
                found = self.network({"images": x})
                return wrong({k: v.numpy() for k, v in found.items()})

            return run

    written = Written()
    broken = dataclasses.replace(chosen, write=written.write, load=written.load)
    monkeypatch.setitem(formats.FORMATS, "saved_model", broken)
    message = f"the file and the model differ by {number}"
    with pytest.raises(RecipeError, match=message):
        export.export_detector(config, made, model)
    assert not (tmp_path / "export").exists()


def found(*rows, size=5):
    """Returns detections on one image."""
    filled = np.zeros((size, 6))
    filled[: len(rows)] = np.reshape(rows, (-1, 6))
    return {
        "boxes": filled[None, :, :4],
        "scores": filled[None, :, 4],
        "classes": filled[None, :, 5],
        "num_detections": np.array([float(len(rows))]),
    }


SHAPE, THRESHOLD = (1, 100, 200, 3), 0.2995
A = (10, 20, 50, 60, 0.9, 1)
B = (10, 20, 50, 60, 0.9, 2)
C = (5, 5, 30, 40, 0.3, 0)


@pytest.mark.parametrize(
    ("actual", "expected", "difference"),
    [
        (found(A, B, C), found(A, B, C), 0.0),
        (found(), found(), 0.0),
        # Relative to the longer side.
        (found((10, 20, 51, 60, 0.9, 1), C), found(A, C), 1 / 200),
        (found((*A[:4], 0.8, 1), C), found(A, C), 0.1),
        # The order of equal scores is arbitrary.
        (found(B, A, C), found(A, B, C), 0.0),
        (found(A, C), found(A, B, C), np.inf),
        (found(A, B, C), found(A, C), np.inf),
        (found(B, C), found(A, C), np.inf),
        (found(), found(A, C), np.inf),
        # At the threshold, or the last of the maximum number.
        (found(A), found(A, C), 0.0),
        (found(A, C), found(A), 0.0),
        (found(A, C), found(A, (9, 9, 20, 20, 0.3004, 2)), 0.0),
        (found(A, C), found(A, (9, 9, 20, 20, 0.4, 2)), np.inf),
        (found(B, size=1), found((*A[:4], 0.9005, 1), size=1), 0.0),
        (found(B, size=1), found((*A[:4], 0.95, 1), size=1), np.inf),
        (found(A, B, size=2), found(A, C, size=2), np.inf),
        # The detection with the lowest score of an image counts as well.
        (found(), found(A), np.inf),
        # Padding beyond the count is not a detection.
        ({**found(A, C), "num_detections": np.ones(1)}, found(A), 0.0),
    ],
)
def test_difference_of_two_results(actual, expected, difference):
    got = export.largest_difference(actual, expected, SHAPE, THRESHOLD)
    assert got == pytest.approx(difference, abs=1e-6)


def test_difference_is_the_maximum_over_images():
    both = [
        {
            key: np.concatenate([found(A, C)[key], second[key]])
            for key in found()
        }
        for second in (found(A, C), found((*A[:4], 0.85, 1), C))
    ]
    got = export.largest_difference(*both, (2, *SHAPE[1:]), THRESHOLD)
    assert got == pytest.approx(0.05)


@pytest.mark.long
def test_mixed_precision_is_exported_in_float32(dataset, tmp_path):
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    config, made, model = network(dataset, tmp_path, precision="mixed_bfloat16")
    export.export_detector(config, made, model)
    folder = tmp_path / "export" / "saved_model"
    facts = json.loads((folder / "export.json").read_text())
    assert facts["trained_in"] == ["mixed_bfloat16"]
    assert facts["dtype"] == "float32"


def test_format_without_nms_is_rejected():
    with pytest.raises(RecipeError, match="--export_format 'litert'.*onnx"):
        small_detector.make_config(export_format="litert")
