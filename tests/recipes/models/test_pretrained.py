import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm
from recipes.errors import RecipeError
from recipes.models import pretrained
from tests.conversion import small_models
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import run

SHAPE = (8, 8, 1)


def make_classifier(*ends, shape=SHAPE, dtype=None):
    x = keras.Input(shape)
    y = layers.Conv2D(4, 3, name="conv", dtype=dtype)(x)
    y = layers.BatchNormalization(name="bn", dtype=dtype)(y)
    y = layers.ReLU(name="relu", dtype=dtype)(y)
    for end in ends:
        y = end(y)
    model = keras.Model(x, y, name="classifier")
    small_models.fill(model)
    return model


def make_pooled_classifier(*ends):
    return make_classifier(layers.GlobalAveragePooling2D(), *ends)


def save_and_load(
    tmp_path, model, norm=None, num_classes=10, precision="float32"
):
    path = tmp_path / "model.keras"
    model.save(path)
    if norm is not None:
        norm = keras_norm.get(norm)
    return pretrained.load_classifier(path, norm, SHAPE, num_classes, precision)


def draw_images():
    return np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")


@pytest.mark.parametrize(
    "ends",
    [
        lambda: [layers.Dense(10, activation="softmax", name="head")],
        lambda: [layers.Dense(10), layers.Softmax()],
        lambda: [layers.Dense(10), layers.Activation("linear")],
        lambda: [layers.Reshape((4,)), layers.Dense(10, use_bias=False)],
    ],
)
@pytest.mark.parametrize("norm", [None, "sync_bn", "rbn"])
def test_head_of_the_same_size_is_kept(ends, norm, tmp_path):
    model = make_pooled_classifier(*ends())
    network, notes = save_and_load(tmp_path, model, norm)
    assert "keeps its head of 10 logits" in notes[-1]
    logits = small_models.call(network, draw_images(), training=False)[0]
    expected = small_models.call(model, draw_images(), training=False)[0]
    if np.allclose(expected.sum(-1), 1.0):
        logits = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "ends",
    [
        lambda: [layers.GlobalAveragePooling2D(), layers.Dense(7, name="head")],
        lambda: [layers.GlobalAveragePooling2D()],
        lambda: [],
    ],
)
def test_other_heads_are_replaced(ends, tmp_path):
    model = make_classifier(*ends())
    network, notes = save_and_load(tmp_path, model, "frn")
    assert "gets a newly initialized head of 10 logits" in notes[-1]
    assert "1 to FRN. 1 TLU created" in notes[0]
    assert network.output_shape == (None, 10)
    np.testing.assert_array_equal(
        network.get_layer("conv").kernel, model.get_layer("conv").kernel
    )


def test_training_starts_from_a_converted_model_on_two_replicas(tmp_path):
    before, _ = run(
        tmp_path / "bn",
        model="resnet8_cifar",
        norm="bn",
        train_steps=40,
    )
    file = str(tmp_path / "bn" / "model.keras")
    rbn, rows = run(
        tmp_path / "rbn",
        init_model=file,
        convert_to="rbn",
        learning_rate=0.0,
        weight_decay=0.0,
        train_steps=1,
        virtual_replicas=2,
    )
    assert rbn["num_replicas"] == 2
    # The model gives the same outputs; only its moving moments change.
    assert rbn["last"]["eval/loss"] == pytest.approx(
        before["last"]["eval/loss"], rel=0.2
    )
    frn, rows = run(
        tmp_path / "frn",
        init_model=file,
        convert_to="frn",
        norm_kwargs={"epsilon": 1e-5},
        train_steps=60,
    )
    assert frn["last"]["eval/examples"] == 360
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    model = keras.saving.load_model(tmp_path / "frn" / "model.keras")
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras_norm.FRN) == 9
    assert keras_norm.BatchNormalization not in kinds
    assert model.get_layer("stem_norm").epsilon == 1e-5
    page = (tmp_path / "frn" / "report.html").read_text()
    assert "model with frn on digits" in page


def test_run_with_a_replaced_head_can_be_evaluated(tmp_path):
    ends = layers.GlobalAveragePooling2D(), layers.Dense(7, name="head")
    make_classifier(*ends).save(tmp_path / "seven.keras")
    flags = {"init_model": str(tmp_path / "seven.keras"), "train_steps": 2}
    trained, _ = run(tmp_path / "run", **flags)
    for checkpoint in ("last", "best"):
        run(tmp_path / "run", mode="eval", checkpoint=checkpoint, **flags)
        found = json.loads((tmp_path / "run" / "eval.json").read_text())
        expected = trained["last"]["eval/loss"]
        assert found["eval/loss"] == pytest.approx(expected, rel=1e-6)


def test_default_workdir_contains_file_and_norm():
    config = make_config(init_model="a/net.keras", convert_to="frn")
    assert config.folder.name == "digits-net-frn"
    assert make_config(init_model="net.h5").folder.name == "digits-net"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"convert_to": "frn"}, "--convert_to converts the model of"),
        ({"init_model": "nix.keras"}, "'nix.keras' does not exist"),
        ({"init_model": "M", "convert_to": "frm"}, "--convert_to 'frm'.*'frn'"),
        ({"init_model": "M", "image_size": 9}, r"of \(8, 8, 1\).*image_size"),
        ({"init_model": "M", "precision": "mixed_bfloat16"}, "in float32"),
        ({"init_model": "NONE", "convert_to": "frn"}, "no batch norm"),
        ({"init_model": "FROZEN"}, "every weight is frozen"),
        ({"init_model": "TWO"}, "one output, but has 1 and 2"),
        (
            {"init_model": "M", "convert_to": "gn", "norm_kwargs": {"eps": 1}},
            "'eps': 1",
        ),
    ],
)
def test_invalid_init_model_raises_a_one_line_error(flags, message, tmp_path):
    def frozen():
        model = make_pooled_classifier(layers.Reshape((4,)))
        model.trainable = False
        return model

    def two():
        model = make_pooled_classifier(layers.Dense(10))
        return keras.Model(model.input, [model.output, model.output])

    makers = {
        "M": lambda: make_pooled_classifier(layers.Dense(10)),
        "NONE": lambda: keras.Sequential(
            [keras.Input(SHAPE), layers.Flatten(), layers.Dense(10)]
        ),
        "FROZEN": frozen,
        "TWO": two,
    }
    name = flags.get("init_model")
    if name in makers:
        makers[name]().save(tmp_path / f"{name}.keras")
        flags = {**flags, "init_model": str(tmp_path / f"{name}.keras")}
    if name == "FROZEN":
        # There are as many features as classes, so no new head is trained.
        with pytest.raises(RecipeError, match=message):
            pretrained.load_classifier(
                flags["init_model"], None, SHAPE, 4, "float32"
            )
        return
    with pytest.raises(RecipeError, match=message) as error:
        run(tmp_path / "run", **flags)
    assert "\n" not in str(error.value)
