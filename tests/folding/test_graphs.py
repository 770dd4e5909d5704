"""Passages, branches, shared layers and nested models around a norm."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_norm
from keras_norm import fold
from tests.conversion import small_models
from tests.folding.models import TOLERANCE
from tests.folding.models import batch
from tests.folding.models import chain
from tests.folding.models import check_fold
from tests.folding.models import outputs
from tests.folding.models import randomize

BatchNorm = layers.BatchNormalization
# Folded norms of the models of `small_models`, of those where some stay.
NUM_FOLDED = {
    "shared_norm": 0,
    "masked": 0,
    "channels_first": 0,
    "positive_axis": 0,
    "without_affine": 1,
    "own_weights": 0,
    "composites": 0,
    "after_activation": 0,
}


pytestmark = pytest.mark.usefixtures("float64")


def conv(filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", **options)


PASSAGES = {
    "identity": lambda: [layers.Identity(), layers.Activation("linear")],
    "dropout": lambda: [layers.Dropout(0.5), layers.SpatialDropout2D(0.5)],
    "noise": lambda: [layers.GaussianNoise(1.0), layers.GaussianDropout(0.5)],
    "max_pooling": lambda: [layers.MaxPooling2D(2, padding="same")],
    "average": lambda: [layers.AveragePooling2D(2)],
    "average_same": lambda: [layers.AveragePooling2D(3, 2, padding="same")],
    "cropping": lambda: [layers.Cropping2D(((1, 0), (2, 1)))],
    "upsampling": lambda: [layers.UpSampling2D(2)],
    "bilinear": lambda: [layers.UpSampling2D(2, interpolation="bilinear")],
    "zero_padding": lambda: [layers.ZeroPadding2D(((1, 0), (2, 1)))],
    "permute": lambda: [layers.Permute((2, 1, 3))],
    "reshape": lambda: [layers.Reshape((9, 8, 4))],
    "merged": lambda: [layers.Reshape((-1, 4)), layers.Reshape((8, 9, 4))],
}


@pytest.mark.parametrize("name", PASSAGES)
def test_passes_to_the_layer_before(name):
    model = chain(
        (8, 9, 3),
        conv(use_bias=False),
        *PASSAGES[name](),
        BatchNorm(),
        layers.ReLU(),
        positive=name == "max_pooling",
    )
    # TensorFlow interpolates in float32.
    tolerance = 1e-6 if name == "bilinear" else TOLERANCE
    _, report = check_fold(model, ["backward"], tolerance)
    assert report.num_paddings == (name == "zero_padding")


@pytest.mark.parametrize("name", PASSAGES)
def test_passes_to_the_layer_behind(name):
    model = chain(
        (8, 9, 4),
        layers.ReLU(),
        BatchNorm(),
        *PASSAGES[name](),
        conv(),
        positive=name == "max_pooling",
    )
    tolerance = 1e-6 if name == "bilinear" else TOLERANCE
    _, report = check_fold(model, ["forward"], tolerance)
    assert report.num_paddings == 1 + (name == "zero_padding")


HEADS = {
    "flatten": lambda: [layers.Flatten()],
    "flatten_first": lambda: [layers.Flatten(data_format="channels_first")],
    "global_average": lambda: [layers.GlobalAveragePooling2D()],
    "global_max": lambda: [layers.GlobalMaxPooling2D()],
    "kept": lambda: [layers.GlobalAveragePooling2D(keepdims=True)],
    "repeat": lambda: [layers.Flatten(), layers.RepeatVector(3)],
    "columns": lambda: [layers.Permute((3, 1, 2)), layers.Flatten()],
}


@pytest.mark.parametrize("name", HEADS)
def test_passes_to_the_head(name):
    model = chain(
        (4, 5, 3),
        layers.ReLU(),
        BatchNorm(),
        *HEADS[name](),
        layers.Dense(5),
        positive=True,
    )
    check_fold(model, ["forward"])


@pytest.mark.parametrize("name", ["global_average", "global_max", "kept"])
def test_norm_of_pooled_features_folds_into_the_convolution(name):
    model = chain(
        (4, 5, 3), conv(), *HEADS[name](), BatchNorm(), layers.ReLU(),
        positive=True,
    )  # fmt: skip
    check_fold(model, ["backward"])


def test_dense_and_reshape_before_a_norm_as_in_a_generator():
    model = chain(
        (5,),
        layers.Dense(3 * 2 * 4, use_bias=False),
        layers.Reshape((3, 2, 4)),
        BatchNorm(),
        layers.ReLU(),
        layers.Conv2DTranspose(3, 4, strides=2, use_bias=False),
        BatchNorm(),
        layers.Activation("tanh"),
    )
    check_fold(model, ["backward", "backward"])


def test_factors_of_positions_do_not_fold_into_a_convolution():
    model = chain(
        (4, 5, 3), conv(), layers.Flatten(), BatchNorm(), layers.ReLU()
    )
    _, report = check_fold(model, [None])
    assert "from position to position" in report.kept[0].reason
    model = chain((4, 5, 3), conv(), layers.Flatten(), BatchNorm(),
                  layers.Dense(3))  # fmt: skip
    check_fold(model, ["forward"])


@pytest.mark.parametrize("pool", ["max_pooling", "global_max"])
def test_negative_factor_does_not_pass_a_maximum(pool):
    layer = {**PASSAGES, **HEADS}[pool]()
    model = chain((8, 9, 3), conv(), *layer, BatchNorm(), layers.ReLU())
    gamma = model.layers[-2].gamma
    gamma.assign(np.abs(gamma) * np.array([1, 1, -1, 1]))
    _, report = check_fold(model, [None])
    assert "negative factor" in report.kept[0].reason


@pytest.mark.parametrize(
    "layer",
    [
        layers.UpSampling2D(2, interpolation="bicubic"),
        layers.Dropout(0.5),
        layers.LayerNormalization(),
        layers.Rescaling(2.0),
    ],
)
def test_other_layers_do_not_pass(layer):
    x = keras.Input((8, 9, 4))
    options = {"training": True} if isinstance(layer, layers.Dropout) else {}
    y = BatchNorm()(layer(conv()(x), **options))
    model = randomize(keras.Model(x, layers.ReLU()(y)))
    _, report = fold(model, verify=False)
    (entry,) = report.kept
    assert layer.name in entry.reason and "ReLU" in entry.reason


def test_max_pooled_convolutions_after_relu():
    """The pattern conv, ReLU, norm, pool, conv: only forward folding works."""
    model = chain(
        (12, 11, 3),
        conv(activation="relu"),
        BatchNorm(),
        layers.MaxPooling2D(),
        layers.Dropout(0.2),
        conv(5, strides=2),
        layers.ReLU(),
        BatchNorm(),
        layers.Flatten(),
        layers.Dense(4),
        positive=True,
    )
    folded, report = check_fold(model, ["forward", "forward"])
    assert report.num_paddings == 1
    assert report.entries[0].into == (model.layers[5].name,)
    sequential = keras.Sequential(model.layers)
    check_fold(sequential, ["forward", "forward"])


def test_unknown_size_with_strides_keeps_the_norm():
    for strides, direction in ((1, "forward"), (2, None)):
        model = chain(
            (None, None, 3), layers.ReLU(), BatchNorm(), conv(strides=strides)
        )
        _, report = check_fold(model, [direction], inputs=batch(model))
    assert "unknown size" in report.kept[0].reason


def test_norms_in_a_row():
    model = chain(
        (8, 9, 3), conv(), BatchNorm(), BatchNorm(axis=-1), layers.ReLU(),
        BatchNorm(), BatchNorm(), conv(), layers.ReLU(),
    )  # fmt: skip
    check_fold(model, ["backward"] * 2 + ["forward"] * 2)


def test_norms_in_a_row_without_a_linear_layer_become_one():
    model = chain(
        (8, 9, 3), layers.ReLU(), BatchNorm(scale=False),
        BatchNorm(center=False), BatchNorm(), layers.ReLU(),
    )  # fmt: skip
    folded, report = check_fold(model, [None, "backward", "backward"])
    assert report.folded[0].into == (model.layers[2].name,)
    assert report.folded[1].into == (model.layers[2].name,)


def test_residual_branches_with_a_norm_behind_the_sum():
    x = keras.Input((8, 9, 3))
    for merge in (layers.Add(), layers.Subtract(), layers.Average(), ops.add):
        branches = [conv()(x), conv(use_bias=False)(x)]
        merged = merge(*branches) if merge is ops.add else merge(branches)
        y = layers.ReLU()(BatchNorm()(merged))
        check_fold(randomize(keras.Model(x, y)), ["backward"])


def test_broadcast_sum_keeps_the_norm():
    x = keras.Input((8, 9, 3))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Add()([conv()(x), conv()(pooled)])
    model = keras.Model(x, layers.ReLU()(BatchNorm()(y)))
    check_fold(randomize(model), [None])


def test_concatenated_branches():
    x = keras.Input((8, 9, 3))
    y = layers.Concatenate()([conv(2)(x), conv(5)(x)])
    y = layers.ReLU()(BatchNorm()(y))
    y = layers.Concatenate()([BatchNorm()(y), x])
    y = layers.Concatenate()([y, layers.MaxPooling2D(3, 1, "same")(y)])
    y = layers.ReLU()(conv()(y))
    model = randomize(keras.Model(x, y), positive=True)
    check_fold(model, ["backward", "forward"])


def test_several_consumers_behind_fold_together_or_not_at_all():
    x = keras.Input((8, 9, 4))
    y = BatchNorm(name="both")(layers.ReLU()(x))
    z = layers.Add()([conv(name="one")(y), layers.Conv2D(4, 1, name="two")(y)])
    y = BatchNorm(name="one_only")(layers.ReLU()(z))
    y = layers.Multiply()([conv()(y), y])
    model = randomize(keras.Model(x, y))
    _, report = check_fold(model, ["forward", None])
    assert set(report.entries[0].into) == {"one", "two"}
    assert "Multiply" in report.entries[1].reason


def test_convolution_with_other_consumers_keeps_its_norm():
    x = keras.Input((8, 9, 4))
    y = conv(name="conv")(x)
    z = layers.Add()([layers.ReLU()(BatchNorm()(y)), layers.ReLU()(y)])
    _, report = check_fold(randomize(keras.Model(x, z)), [None])
    assert "also feeds" in report.kept[0].reason
    model = keras.Model(x, [layers.ReLU()(BatchNorm()(y)), y])
    _, report = check_fold(randomize(model), [None])
    assert "also an output" in report.kept[0].reason


def test_norm_that_is_an_output_keeps_the_name_of_the_output():
    x = keras.Input((8, 9, 4), name="image")
    y = BatchNorm(name="features")(conv()(x))
    z = layers.Dense(3, name="logits")(layers.Flatten()(layers.ReLU()(y)))
    model = randomize(keras.Model({"image": x}, {"f": y, "z": z}))
    folded, _ = check_fold(model, ["backward"])
    assert folded.output_names == model.output_names
    y = BatchNorm(name="features")(layers.ReLU()(x))
    model = randomize(keras.Model(x, [y, conv()(y)]))
    _, report = check_fold(model, [None])
    assert "is an output" in report.kept[0].reason


def test_shared_pair_folds_and_shared_convolution_with_own_norms_stays():
    x, y = keras.Input((8, 9, 3)), keras.Input((8, 9, 3))
    shared, norm = conv(), BatchNorm()
    z = layers.Add()([layers.ReLU()(norm(shared(t))) for t in (x, y)])
    check_fold(randomize(keras.Model([x, y], z)), ["backward"])
    z = layers.Add()([layers.ReLU()(BatchNorm()(shared(t))) for t in (x, y)])
    _, report = check_fold(randomize(keras.Model([x, y], z)), [None, None])
    assert "called 2 times" in report.kept[0].reason


def test_shared_norm_with_own_convolutions_folds():
    x, norm = keras.Input((8, 9, 3)), BatchNorm()
    z = layers.Add()([layers.ReLU()(norm(conv()(x))) for _ in range(2)])
    folded, report = check_fold(randomize(keras.Model(x, z)), ["backward"])
    assert len(report.folded[0].into) == 2


def test_shared_norm_whose_calls_are_outputs_folds():
    x, norm = keras.Input((8, 9, 3)), BatchNorm(name="norm")
    model = keras.Model(x, [norm(conv()(x)), norm(conv()(x))])
    check_fold(randomize(model), ["backward"])


def test_shared_pair_forward_at_two_sizes():
    x, norm, shared = keras.Input((8, 9, 4)), BatchNorm(), conv(strides=2)
    small = layers.AveragePooling2D(2, 1)(x)
    ys = [shared(norm(layers.ReLU()(t))) for t in (x, small)]
    z = [layers.GlobalMaxPooling2D()(y) for y in ys]
    model = randomize(keras.Model(x, layers.Add()(z)))
    _, report = check_fold(model, ["forward"])
    assert report.num_paddings == 2


def test_shared_zero_padding_with_and_without_a_norm():
    x, pad = keras.Input((8, 9, 4)), layers.ZeroPadding2D(name="pad")
    z = [
        layers.Conv2D(4, 3)(pad(BatchNorm()(layers.ReLU()(x)))),
        layers.Conv2D(4, 3)(pad(BatchNorm()(layers.ReLU()(x)))),
        layers.Conv2D(4, 3)(pad(x)),
    ]
    model = randomize(keras.Model(x, layers.Add()(z)))
    _, report = check_fold(model, ["forward", "forward"])
    assert report.num_paddings == 2


def encoder(**options):
    x = keras.Input((8, 9, 3))
    y = layers.ReLU()(BatchNorm(name="first")(conv(name="conv")(x)))
    y = layers.ReLU()(conv(name="conv2")(BatchNorm(name="second")(y)))
    return keras.Model(x, y, **options)


def test_nested_models_fold_across_their_borders():
    before = keras.Sequential(
        [keras.Input((8, 9, 3)), conv(name="conv")], name="before"
    )
    norm = keras.Sequential([keras.Input((8, 9, 4)), BatchNorm()], name="norm")
    behind = keras.Sequential(
        [keras.Input((8, 9, 4)), layers.ReLU(), BatchNorm()], name="behind"
    )
    x = keras.Input((8, 9, 3))
    y = behind(norm(before(x)))
    model = randomize(keras.Model(x, conv(name="last")(y)))
    folded, report = check_fold(model, ["backward", "forward"])
    assert [e.into for e in report.entries] == [("before/conv",), ("last",)]
    kinds = [type(layer) for layer in folded.layers]
    assert kinds.count(keras_norm.ConstantPadding) == 1
    assert kinds.count(keras.Sequential) == 3


def test_model_called_twice_folds_inside_but_not_across_its_border():
    x, y = keras.Input((8, 9, 3)), keras.Input((8, 9, 3))
    inner = encoder(name="encoder")
    z = layers.Concatenate()([inner(x), inner(y)])
    z = layers.ReLU()(BatchNorm(name="outer")(z))
    model = randomize(keras.Model([x, y], z))
    _, report = check_fold(model, ["backward", "forward", None])
    assert report.entries[0].path == "encoder/first"


def test_sequential_inside_a_sequential():
    inner = keras.Sequential(
        [keras.Input((8, 9, 3)), conv(), BatchNorm(), layers.ReLU(),
         BatchNorm(), layers.MaxPooling2D()]
    )  # fmt: skip
    model = keras.Sequential([inner, conv(), BatchNorm(), layers.ReLU()])
    model.build((None, 8, 9, 3))
    randomize(model, positive=True)
    check_fold(model, ["backward", "forward", "backward"])


def test_training_mode_keeps_the_norm():
    x = keras.Input((8, 9, 3))
    norm = BatchNorm()
    y = layers.ReLU()(norm(conv()(x), training=True))
    model = randomize(keras.Model(x, y))
    _, report = fold(model, verify=False)
    assert "training=True" in report.kept[0].reason
    norm.trainable = False
    check_fold(model, ["backward"])
    inner = encoder(name="encoder")
    model = keras.Model(x, inner(x, training=True))
    _, report = fold(randomize(model), verify=False)
    assert len(report.kept) == 2


def test_frozen_and_inference_calls_fold():
    x = keras.Input((8, 9, 3))
    inner = encoder(name="encoder")
    inner.trainable = False
    y = inner(x, training=False)
    model = randomize(keras.Model(x, BatchNorm()(conv()(y), training=False)))
    folded, _ = check_fold(model, ["backward", "forward", "backward"])
    assert not folded.get_layer("encoder").trainable
    assert not folded.get_layer("encoder").get_layer("conv").trainable


def test_masks_pass_a_folded_norm():
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(5, 3, mask_zero=True)(x)
    y = BatchNorm()(layers.Dense(4)(y))
    model = randomize(keras.Model(x, layers.LSTM(3)(layers.ReLU()(y))))
    check_fold(model, ["backward"])
    y = BatchNorm()(layers.ReLU()(layers.Embedding(5, 3, mask_zero=True)(x)))
    y = layers.Dense(4)(layers.GlobalAveragePooling1D()(y))
    _, report = check_fold(randomize(keras.Model(x, y)), [None])
    assert "mask" in report.kept[0].reason


def test_weight_that_an_operation_uses_too_is_not_changed():
    x = keras.Input((4,))
    dense = layers.Dense(4, name="dense")
    y = BatchNorm()(dense(x))
    model = randomize(keras.Model(x, ops.matmul(ops.relu(y), dense.kernel)))
    _, report = check_fold(model, [None])
    assert "used elsewhere" in report.kept[0].reason


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = BatchNorm(name="inner")

    def call(self, inputs):
        return self.norm(inputs)


def test_unreachable_norms_are_listed_and_alone_are_an_error():
    model = chain((8, 9, 3), conv(), BatchNorm(), Block(name="block"))
    _, report = check_fold(model, ["backward", None])
    assert report.unreachable[0].path == "block/inner"
    assert "inside 'block'" in report.unreachable[0].reason
    for options in ({"include": "inner"}, {"exclude": BatchNorm}):
        with pytest.raises(keras_norm.ConversionError):
            fold(model, **options)
    with pytest.raises(keras_norm.ConversionError, match="No functional graph"):
        fold(model, include="block")


def test_selection():
    model = chain(
        (8, 9, 3), conv(), BatchNorm(name="a"), layers.ReLU(), conv(),
        BatchNorm(name="b"), layers.ReLU(),
    )  # fmt: skip
    _, report = check_fold(model, ["backward", None], include="a")
    assert report.kept[0].reason == "left out by include or exclude"
    check_fold(model, [None, "backward"], exclude=["a"])


@pytest.mark.parametrize("name", small_models.ZOO)
def test_small_models(name):
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    model = small_models.build(name)
    _, report = fold(model)
    assert len(report.folded) == NUM_FOLDED.get(name, len(report.entries))


def test_shares_nothing_with_the_original():
    model = chain((8, 9, 3), conv(), BatchNorm(), layers.ReLU(), conv())
    folded, _ = fold(model)
    x = batch(model)
    (before,) = outputs(folded, x)
    for variable in model.variables:
        variable.assign(variable * 0 + 3)
    np.testing.assert_array_equal(before, outputs(folded, x)[0])
