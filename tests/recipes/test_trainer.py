"""The step under several replicas against one device, and what it counts."""

import keras
import numpy as np
import pytest

from recipes import data
from recipes import loop
from recipes import strategy
from recipes.trainer import NORM_WEIGHTS
from tests.recipes.runs import make_config


def train(num_replicas, steps=3, **flags):
    config = make_config(
        **{"global_batch_size": 32, "virtual_replicas": num_replicas, **flags}
    )
    replicas = strategy.make(config)
    assert replicas.num_replicas_in_sync == num_replicas
    made = data.make(config)
    trainer = loop.build(config, made, replicas)
    history = trainer.fit(
        made.train(0), steps_per_epoch=steps, verbose=0, shuffle=False
    )
    return trainer, history.history, made


@pytest.mark.parametrize(
    ("norm", "num_replicas"), [("frn", 2), ("sync_bn", 2), ("frn", 4)]
)
def test_replicas_equal_one_device(norm, num_replicas):
    flags = {"norm": norm, "label_smoothing": 0.1, "weight_decay": 0.01}
    expected, expected_logs, _ = train(1, **flags)
    trainer, logs, made = train(num_replicas, **flags)
    for key in expected_logs:
        np.testing.assert_allclose(logs[key], expected_logs[key], rtol=1e-5)
    for ours, theirs in zip(
        trainer.model.weights, expected.model.weights, strict=True
    ):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), atol=1e-5, err_msg=ours.path
        )
    values = trainer.evaluate(made.evaluation, verbose=0, return_dict=True)
    single = expected.evaluate(made.evaluation, verbose=0, return_dict=True)
    assert values["examples"] == single["examples"] == 360
    assert values["accuracy"] == pytest.approx(single["accuracy"], abs=1e-6)
    assert values["loss"] == pytest.approx(single["loss"], rel=1e-5)


def test_evaluation_is_the_mean_over_all_examples():
    trainer, _, made = train(2, global_batch_size=50)
    values = trainer.evaluate(made.evaluation, verbose=0, return_dict=True)
    unpadded = [
        (image, label)
        for image, label, weight in made.evaluation.unbatch()
        if weight
    ]
    images, labels = map(np.stack, zip(*unpadded, strict=True))
    logits = trainer.model.predict(images, verbose=0)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    hits = logits.argmax(-1) == labels
    order = np.argsort(-logits, axis=-1)[:, :5]
    assert values["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert values["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
    assert values["top5_accuracy"] == pytest.approx(
        (order == labels[:, None]).any(-1).mean(), abs=1e-6
    )


def test_equal_logits_are_not_a_hit_for_every_label():
    trainer, _, made = train(1, steps=1)
    logits = trainer.model.get_layer("logits")
    logits.set_weights([np.zeros(w.shape) for w in logits.weights])
    values = trainer.evaluate(made.evaluation, verbose=0, return_dict=True)
    assert values["accuracy"] < 0.2


@pytest.mark.parametrize("norm", ["frn", "rbn"])
@pytest.mark.parametrize("norm_weight_decay", [False, True])
def test_weight_decay_leaves_norms_out_unless_asked(norm, norm_weight_decay):
    config = make_config(
        norm=norm,
        weight_decay=1.0,
        norm_weight_decay=norm_weight_decay,
        virtual_replicas=None,
    )
    replicas = strategy.make(config)
    trainer = loop.build(config, data.make(config), replicas)
    for weight in trainer.model.trainable_variables:
        weight.assign(np.full(weight.shape, 2.0))
    squares = {
        weight.path: 2.0 * np.prod(weight.shape)
        for weight in trainer.model.trainable_variables
        if norm_weight_decay or weight.name not in NORM_WEIGHTS
    }
    names = {w.name for w in trainer.model.trainable_variables}
    assert names - {"kernel", "bias"} <= set(NORM_WEIGHTS)
    penalty = float(trainer._penalty())
    assert penalty == pytest.approx(sum(squares.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "norm"), [("mixed_float16", "frn"), ("mixed_bfloat16", "rbn")]
)
def test_half_precision_trains(precision, norm):
    trainer, logs, _ = train(1, norm=norm, precision=precision)
    assert np.isfinite(logs["loss"]).all()
    for weight in trainer.model.weights:
        assert weight.dtype == "float32"
        assert np.isfinite(weight.numpy()).all()
