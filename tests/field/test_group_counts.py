"""Numbers of groups that nobody passed, and that old files were saved with."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm import RBN
from keras_norm import GroupNormalization
from tests.assertions import assert_allclose
from tests.assertions import to_numpy

# Channels, groups: at most 32 groups, at least 4 channels in each, a divisor.
DEFAULTS = [
    (3, 1),
    (4, 1),
    (6, 1),
    (8, 2),
    (12, 3),
    (16, 4),
    (24, 6),
    (32, 8),
    (37, 1),
    (48, 12),
    (64, 16),
    (96, 24),
    (116, 29),
    (128, 32),
    (144, 24),
    (192, 32),
    (256, 32),
    (1280, 32),
]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(1.5, 2.0, shape).astype("float32")


def keras_group_norm(x, groups):
    """The same by Keras' layer, which takes no default from ours."""
    return to_numpy(keras.layers.GroupNormalization(groups)(x))


@pytest.mark.parametrize(("channels", "groups"), DEFAULTS)
def test_default_groups(channels, groups):
    x = draw(2, 3, 3, channels)
    for layer in (GroupNormalization(), GroupNormalization("auto")):
        expected = keras_group_norm(x, groups)
        assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
        assert layer.get_config()["groups"] == groups
        assert layer.groups is None


@pytest.mark.parametrize("channels", [*range(1, 41), 56, 100, 320, 1000])
def test_default_groups_against_all_divisors(channels):
    layer = GroupNormalization()
    layer.build((None, 5, 5, channels))
    allowed = [
        n
        for n in range(1, 33)
        if channels % n == 0 and channels // n >= min(4, channels)
    ]
    expected = max(allowed) if channels >= 4 else 1
    assert layer.get_config()["groups"] == expected


@pytest.mark.parametrize("groups", [None, -1, 2])
def test_config_makes_the_same_layer_before_and_after_build(groups):
    layer = GroupNormalization(groups)
    before = GroupNormalization.from_config(layer.get_config())
    x = draw(2, 3, 3, 16)
    expected = to_numpy(layer(x))
    after = GroupNormalization.from_config(layer.get_config())
    by_arguments = GroupNormalization(**layer.get_config())
    for other in (before, after, by_arguments):
        assert_allclose(other(x), expected, rtol=1e-6, atol=1e-6)


def network(channels=16):
    return keras.Sequential(
        [
            keras.Input((4, 4, channels)),
            GroupNormalization(name="norm"),
            keras.layers.ReLU(),
        ]
    )


def as_saved_before(path):
    """Rewrites a file as one in which the layer's config says `None`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "GroupNormalization":
            assert layer["config"]["groups"] == 4
            layer["config"]["groups"] = None
    entries["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_old_file_keeps_its_groups(tmp_path):
    path = tmp_path / "old.keras"
    network().save(path)
    as_saved_before(path)
    x = draw(2, 4, 4, 16)
    # The greatest common divisor of 32 and 16 channels.
    expected = np.maximum(keras_group_norm(x, 16), 0)
    old = keras.models.load_model(path)
    assert_allclose(old(x), expected, rtol=1e-4, atol=1e-5)
    # Also once it is saved again, or cloned.
    old.save(tmp_path / "again.keras")
    for model in (
        keras.models.load_model(tmp_path / "again.keras"),
        keras.models.clone_model(old),
    ):
        assert model.get_layer("norm").get_config()["groups"] == 16
        assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_config_of_an_old_unbuilt_layer():
    config = {**GroupNormalization().get_config(), "groups": None}
    layer = GroupNormalization.from_config(config)
    again = GroupNormalization.from_config(layer.get_config())
    x = draw(2, 4, 4, 48)
    expected = keras_group_norm(x, 16)
    for old in (layer, again):
        assert_allclose(old(x), expected, rtol=1e-4, atol=1e-5)
    vector = GroupNormalization.from_config(config)
    vector.build((None, 48))
    assert vector.get_config()["groups"] == 1


def test_new_file_has_the_number_in_its_config(tmp_path):
    model = network()
    model.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as archive:
        config = json.loads(archive.read("config.json"))
    groups = [
        layer["config"]["groups"]
        for layer in config["config"]["layers"]
        if layer["class_name"] == "GroupNormalization"
    ]
    assert groups == [4]
    x = draw(2, 4, 4, 16)
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert_allclose(loaded(x), to_numpy(model(x)), rtol=1e-6, atol=1e-6)


def test_rbn_over_groups_takes_the_same_default():
    x = draw(2, 3, 3, 16)
    layers = [RBN(statistics="group", groups=n) for n in (None, 4)]
    chosen, given = (to_numpy(layer(x)) for layer in layers)
    assert_allclose(chosen, given, rtol=1e-6, atol=1e-6)
    assert layers[0].get_config()["groups"] == 4
    # Its default was 32 before, and old configs say so.
    assert RBN.from_config({**RBN().get_config(), "groups": 32}).groups == 32


def batch_norm_model(channels=16):
    return keras.Sequential(
        [
            keras.Input((4, 4, channels)),
            keras.layers.BatchNormalization(name="first"),
            keras.layers.Conv2D(2 * channels, 3, name="conv"),
            keras.layers.BatchNormalization(name="second"),
        ]
    )


def test_conversion_chooses_groups_by_the_same_rule():
    converted, report = keras_norm.convert(batch_norm_model(), "gn")
    x = draw(2, 4, 4, 16)
    config = [converted.get_layer(n).get_config() for n in ("first", "second")]
    assert [c["groups"] for c in config] == [4, 8]
    first = converted.get_layer("first")(x)
    assert_allclose(first, keras_group_norm(x, 4), rtol=1e-4, atol=1e-5)
    assert not any(entry.note for entry in report.entries)


@pytest.mark.parametrize("norm", ["gn", "frn"])
def test_conversion_warns_of_one_channel_a_group(norm):
    with pytest.warns(
        UserWarning, match="1 layer with one channel per group.*first"
    ):
        _, report = keras_norm.convert(batch_norm_model(), norm, groups=16)
    notes = {entry.path: entry.note for entry in report.entries}
    assert "groups=16 leaves one channel per group" in notes["first"]
    assert notes["second"] is None


def test_conversion_to_instance_norm_by_name_does_not_warn():
    keras_norm.convert(batch_norm_model(), "in")
    keras_norm.convert(batch_norm_model(), "ln")
