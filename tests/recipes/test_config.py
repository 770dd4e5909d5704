import dataclasses
import json

import pytest
from absl import flags

import keras_norm
from recipes import flags as recipe_flags
from recipes import imagenet  # noqa: F401, defines the flags
from recipes import presets
from recipes import workdir
from recipes.config import Config
from recipes.errors import RecipeError


def parse(*arguments):
    values = flags.FLAGS
    for name in values:
        values[name].unparse()
    values(["imagenet.py", *arguments])
    return recipe_flags.to_config(values)


def test_flags_change_a_preset_which_changes_the_defaults():
    config = parse("--preset=digits", "--norm=rbn", "--seed=3")
    assert (config.norm, config.seed) == ("rbn", 3)
    assert config.model == presets.PRESETS["digits"]["model"]
    assert config.momentum == Config().momentum


def test_every_field_is_a_flag():
    for field in dataclasses.fields(Config):
        assert flags.FLAGS[field.name].help.strip()


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_valid(name):
    config = parse(f"--preset={name}")
    for key, value in presets.PRESETS[name].items():
        assert getattr(config, key) == value
    assert (config.train_steps is None) != (config.train_epochs is None)


def test_the_papers_runs():
    config = parse("--preset=frn_resnet50v2")
    assert config.train_steps == 300_000
    assert config.schedule == "cosine"
    assert config.peak_learning_rate == pytest.approx(0.1)
    assert parse("--preset=frn_vgg_a").warmup_epochs > 0


def test_a_length_by_hand_replaces_the_presets():
    config = parse("--preset=frn_resnet50v2", "--train_epochs=2")
    assert (config.train_epochs, config.train_steps) == (2, None)
    config = parse("--preset=digits", "--train_steps=7")
    assert (config.train_epochs, config.train_steps) == (None, 7)


def test_the_learning_rate_grows_with_the_batch():
    config = parse("--global_batch_size=1024", "--learning_rate=0.1")
    assert config.peak_learning_rate == pytest.approx(0.4)


def test_norm_kwargs_are_json():
    config = parse('--norm_kwargs={"epsilon": 1e-5}')
    assert config.norm_kwargs == {"epsilon": 1e-5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=digit"], "Did you mean 'digits'"),
        (["--mode=test"], "train_and_eval"),
        (["--schedule=cosin"], "Did you mean 'cosine'"),
        (["--norm_kwargs={"], "must be JSON"),
        (["--norm_kwargs=[1]"], "JSON object"),
        (["--global_batch_size=0"], "at least 1.*global_batch_size=0"),
        (["--momentum=1.5"], "at most 1.*momentum=1.5"),
        (["--train_epochs=2", "--train_steps=2"], "train_steps=2"),
    ],
)
def test_a_bad_value_is_one_line_that_says_so(arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)


def test_the_config_in_the_workdir_is_the_run(tmp_path):
    config = Config(workdir=str(tmp_path), norm="rbn")
    workdir.check(config)
    workdir.save(config)
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept == config.to_dict()
    workdir.check(dataclasses.replace(config, mode="eval"))
    other = dataclasses.replace(config, norm="frn", seed=1)
    message = "seed is 0 there and 1 now; norm is 'rbn' there and 'frn' now"
    with pytest.raises(RecipeError, match=message):
        workdir.check(other)


def test_the_workdir_alone_is_enough_to_name_its_run(tmp_path):
    config = parse("--preset=digits", "--norm=rbn", f"--workdir={tmp_path}")
    workdir.check(config)
    workdir.save(config)
    again = parse(f"--workdir={tmp_path}", "--mode=eval")
    assert again == dataclasses.replace(config, mode="eval")
    with pytest.raises(RecipeError, match="norm is 'rbn' there and 'gn' now"):
        workdir.check(
            parse("--preset=digits", "--norm=gn", f"--workdir={tmp_path}")
        )
    assert parse(f"--workdir={tmp_path / 'new'}").norm == Config().norm


@pytest.mark.parametrize("text", ["{", "[1]", '{"colour": 3}'])
def test_a_config_that_is_none_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match="config.json is not a config"):
        parse(f"--workdir={tmp_path}")
    with pytest.raises(RecipeError, match="config.json is not a config"):
        workdir.check(Config(workdir=str(tmp_path)))


def test_help_names_every_norm():
    names = " ".join(keras_norm.names())
    assert names in flags.FLAGS["norm"].help


def test_a_workdir_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    config = Config(workdir=str(tmp_path / "file" / "run"))
    with pytest.raises(RecipeError, match="cannot write to the workdir"):
        workdir.check(config)


def test_the_default_workdir_tells_runs_apart():
    folder = Config(dataset="folder:/a/b", norm="rbn").folder
    assert str(folder) == "runs/folder--a-b-ResNet50V2-rbn"
