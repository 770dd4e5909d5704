import dataclasses
import json

import pytest
from absl import flags

import keras_norm
from recipes.classification import presets
from recipes.classification.config import Config
from recipes.config import flags as recipe_flags
from recipes.detection.config import DetectionConfig
from recipes.errors import RecipeError
from recipes.run_dir import run_dir
from tests.recipes.command_line import parse_flags


def parse(*arguments):
    return parse_flags(Config, *arguments)


def parse_coco(*arguments):
    return parse_flags(DetectionConfig, *arguments)


PARSERS = {Config: parse, DetectionConfig: parse_coco}
PRESETS = [(kind, name) for kind in PARSERS for name in kind.PRESETS]


def test_flags_override_presets_and_presets_override_defaults():
    config = parse("--preset=digits", "--norm=rbn", "--seed=3")
    assert (config.norm, config.seed) == ("rbn", 3)
    assert config.model == presets.PRESETS["digits"]["model"]
    assert config.momentum == Config().momentum


@pytest.mark.parametrize("kind", PARSERS)
def test_every_field_is_a_flag(kind):
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, kind)
    fields = dataclasses.fields(kind)
    assert {field.name for field in fields} <= set(values)
    for field in fields:
        assert values[field.name].help.strip()
    # --help shows every flag in exactly one group.
    grouped = [
        f.name for group in kind.GROUPS for f in dataclasses.fields(group)
    ]
    assert sorted(grouped) == sorted(field.name for field in fields)


@pytest.mark.parametrize(("kind", "name"), PRESETS)
def test_every_preset_is_valid(kind, name):
    config = PARSERS[kind](f"--preset={name}")
    for key, value in kind.PRESETS[name].items():
        assert getattr(config, key) == value
    assert (config.train_steps is None) != (config.train_epochs is None)


def test_a_preset_of_another_program_is_unknown():
    with pytest.raises(RecipeError, match="unknown preset 'digits'"):
        parse_coco("--preset=digits")
    with pytest.raises(RecipeError, match="unknown preset 'trees'"):
        parse("--preset=trees")


@pytest.mark.parametrize("batch_size", [64, 32, 16])
@pytest.mark.parametrize("base", [0.01, 0.05, 0.1])
def test_presets_match_the_detectors_of_the_paper(batch_size, base):
    """FRN paper, section 4.3: 125K * 64 / M steps, base * M / 64."""
    config = parse_coco(
        f"--preset=frn_resnet101_{batch_size}", f"--learning_rate={base}"
    )
    assert config.global_batch_size == batch_size
    assert config.train_steps * batch_size == 125_000 * 64
    assert config.peak_learning_rate == pytest.approx(base * batch_size / 64)
    assert (config.model, config.norm) == ("ResNet101", "frn")
    assert config.image_size == 1024 and config.momentum == 0.9


def test_workdir_alone_selects_its_detector(tmp_path):
    config = parse_coco("--preset=trees", f"--workdir={tmp_path}")
    run_dir.check_run_dir(config)
    run_dir.write_config(config)
    again = parse_coco(f"--workdir={tmp_path}", "--mode=eval")
    assert again == dataclasses.replace(config, mode="eval")
    with pytest.raises(RecipeError, match="is not a config of"):
        parse(f"--workdir={tmp_path}")


def test_presets_match_the_runs_of_the_papers():
    config = parse("--preset=frn_resnet50v2")
    assert config.train_steps == 300_000
    assert config.schedule == "cosine"
    assert config.peak_learning_rate == pytest.approx(0.1)
    assert parse("--preset=frn_vgg_a").warmup_epochs > 0


def test_length_flag_overrides_the_length_of_the_preset():
    config = parse("--preset=frn_resnet50v2", "--train_epochs=2")
    assert (config.train_epochs, config.train_steps) == (2, None)
    config = parse("--preset=digits", "--train_steps=7")
    assert (config.train_epochs, config.train_steps) == (None, 7)


def test_learning_rate_scales_with_the_batch_size():
    config = parse("--global_batch_size=1024", "--learning_rate=0.1")
    assert config.peak_learning_rate == pytest.approx(0.4)


def test_norm_kwargs_are_parsed_as_json():
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
def test_illegal_value_is_a_one_line_error(arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)


def test_workdir_rejects_another_config(tmp_path):
    config = Config(workdir=str(tmp_path), norm="rbn")
    run_dir.check_run_dir(config)
    run_dir.write_config(config)
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept == {"program": "imagenet", **config.to_dict()}
    run_dir.check_run_dir(dataclasses.replace(config, mode="eval"))
    other = dataclasses.replace(config, norm="frn", seed=1)
    message = "seed is 0 there and 1 now; norm is 'rbn' there and 'frn' now"
    with pytest.raises(RecipeError, match=message):
        run_dir.check_run_dir(other)


def test_workdir_alone_selects_its_run(tmp_path):
    config = parse("--preset=digits", "--norm=rbn", f"--workdir={tmp_path}")
    run_dir.check_run_dir(config)
    run_dir.write_config(config)
    again = parse(f"--workdir={tmp_path}", "--mode=eval")
    assert again == dataclasses.replace(config, mode="eval")
    with pytest.raises(RecipeError, match="norm is 'rbn' there and 'gn' now"):
        run_dir.check_run_dir(
            parse("--preset=digits", "--norm=gn", f"--workdir={tmp_path}")
        )
    assert parse(f"--workdir={tmp_path / 'new'}").norm == Config().norm


@pytest.mark.parametrize("text", ["{", "[1]", '{"colour": 3}'])
def test_invalid_config_file_is_an_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match="config.json is not a config"):
        parse(f"--workdir={tmp_path}")
    with pytest.raises(RecipeError, match="config.json is not a config"):
        run_dir.check_run_dir(Config(workdir=str(tmp_path)))


def test_help_names_every_norm():
    (norm,) = (f for f in dataclasses.fields(Config) if f.name == "norm")
    names = "|".join(keras_norm.names())
    assert names in recipe_flags.describe_flag(norm, Config)


def test_programs_agree_on_what_shared_settings_mean():
    """A program that overrides a setting must repeat its rules."""
    rules = [
        {
            field.name: (
                field.metadata["on_resume"],
                field.metadata["affects_result"],
            )
            for field in dataclasses.fields(config_class)
        }
        for config_class in PARSERS
    ]
    shared = rules[0].keys() & rules[1].keys()
    assert len(shared) > 40
    for name in shared:
        assert rules[0][name] == rules[1][name], name


def test_a_config_names_its_program(tmp_path):
    config = Config(workdir=str(tmp_path))
    run_dir.write_config(config)
    path = tmp_path / "config.json"
    programs = [DetectionConfig, Config]
    config_class, settings = run_dir.read_config(tmp_path, programs)
    assert (config_class, settings) == (Config, config.to_dict())
    # Earlier versions did not store the program.
    path.write_text(json.dumps(config.to_dict()))
    assert run_dir.read_config(tmp_path, programs)[0] is Config
    path.write_text(json.dumps({"program": "other", **config.to_dict()}))
    with pytest.raises(RecipeError, match="imagenet.py or recipes/coco.py"):
        run_dir.read_config(tmp_path, [Config, DetectionConfig])


def test_unusable_workdir_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    config = Config(workdir=str(tmp_path / "file" / "run"))
    with pytest.raises(RecipeError, match="cannot write to the workdir"):
        run_dir.check_run_dir(config)


def test_default_workdir_differs_between_runs():
    folder = Config(dataset="folder:/a/b", norm="rbn").folder
    assert str(folder) == "runs/folder--a-b-ResNet50V2-rbn"
