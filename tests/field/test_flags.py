"""Every optional flag accepts `none`, even if a preset sets it."""

import dataclasses
import json
import socket
import typing

import keras
import pytest
from absl import flags

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

from recipes.classification.config import Config  # noqa: E402
from recipes.config import base as config_lib  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.config.setting import MAY_CHANGE  # noqa: E402
from recipes.config.setting import PER_COMMAND  # noqa: E402
from recipes.detection.config import DetectionConfig  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.experiments import grid  # noqa: E402
from recipes.experiments.programs import PROGRAMS  # noqa: E402
from recipes.run_dir import run_dir  # noqa: E402
from recipes.training import distribution  # noqa: E402
from tests.recipes.command_line import FAST  # noqa: E402
from tests.recipes.command_line import cluster  # noqa: E402
from tests.recipes.command_line import finish  # noqa: E402
from tests.recipes.command_line import parse_flags  # noqa: E402

KINDS = {"imagenet": Config, "coco": DetectionConfig}


def is_optional(field):
    return type(None) in typing.get_args(field.type)


FIELDS = [
    (program, field)
    for program, kind in KINDS.items()
    for field in dataclasses.fields(kind)
]
OPTIONAL = [(program, f) for program, f in FIELDS if is_optional(f)]
REQUIRED = [(program, f) for program, f in FIELDS if not is_optional(f)]
# A run has exactly one of these lengths.
OTHER_LENGTH = {"train_epochs": "train_steps", "train_steps": "train_epochs"}


def ids(fields):
    return [f"{program}-{field.name}" for program, field in fields]


def example(field):
    """Returns a value of an optional setting."""
    if field.metadata["choices"]:
        return field.metadata["choices"][0]
    (kind,) = set(typing.get_args(field.type)) - {type(None)}
    return {str: "frn", int: 2, float: 0.5}[kind]


def parse(kind, *arguments):
    return parse_flags(kind, *arguments)


def preset_of(field):
    """Returns a valid preset that sets the field."""
    preset = {field.name: example(field)}
    if field.name == "convert_to":
        preset["init_model"] = "model.keras"
    return preset


def unset(field):
    arguments = [f"--{field.name}=none"]
    if field.name in OTHER_LENGTH:
        arguments.append(f"--{OTHER_LENGTH[field.name]}=3")
    return arguments


def test_there_are_optional_flags_of_every_type():
    kinds = {arg for _, f in OPTIONAL for arg in typing.get_args(f.type)}
    assert kinds == {str, int, float, type(None)}
    assert len(OPTIONAL) > 30


@pytest.mark.parametrize(("program", "field"), OPTIONAL, ids=ids(OPTIONAL))
def test_none_unsets_what_a_preset_sets(program, field, monkeypatch, tmp_path):
    kind = KINDS[program]
    if field.name != "preset":
        monkeypatch.setitem(kind.PRESETS, "full", preset_of(field))
        kept = parse(kind, "--preset=full")
        assert getattr(kept, field.name) == example(field)
    preset = ["--preset=full"] * (field.name != "preset")
    config = parse(kind, *preset, *unset(field))
    assert getattr(config, field.name) is None
    for spelled in ("None", "NONE"):
        again = [a.replace("none", spelled) for a in unset(field)]
        assert parse(kind, *preset, *again) == config
    # As for every flag, the last value counts.
    assert (
        getattr(
            parse(
                kind, f"--{field.name}={example(field)}", *preset, *unset(field)
            ),
            field.name,
        )
        is None
    )


# preset and workdir select the config itself.
KEPT = [(p, f) for p, f in OPTIONAL if f.name not in ("preset", "workdir")]


@pytest.mark.parametrize(("program", "field"), KEPT, ids=ids(KEPT))
def test_none_is_kept_and_compared(program, field, monkeypatch, tmp_path):
    kind = KINDS[program]
    monkeypatch.setitem(kind.PRESETS, "full", preset_of(field))
    place = f"--workdir={tmp_path}"
    config = parse(kind, "--preset=full", *unset(field), place)
    run_dir.check_run_dir(config)
    run_dir.write_config(config)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored[field.name] is None
    assert parse(kind, place) == config
    run_dir.check_run_dir(parse(kind, "--preset=full", *unset(field), place))
    other = parse(kind, "--preset=full", place)
    if field.metadata["on_resume"] in (MAY_CHANGE, PER_COMMAND):
        run_dir.check_run_dir(other)
        # A later command may unset it by the flag alone.
        run_dir.write_config(other)
        assert getattr(parse(kind, place), field.name) == example(field)
        assert getattr(parse(kind, place, *unset(field)), field.name) is None
    else:
        message = f"{field.name} is None there and {example(field)!r} now"
        with pytest.raises(RecipeError, match=message):
            run_dir.check_run_dir(other)


@pytest.mark.parametrize(("program", "field"), OPTIONAL, ids=ids(OPTIONAL))
def test_help_mentions_none(program, field):
    kind = KINDS[program]
    assert "none unsets it" in recipe_flags.describe_flag(field, kind)
    assert "none unsets it" in " ".join(
        recipe_flags.program_help("", kind)
        .partition(f"--{field.name}\n")[2]
        .partition("\n  --")[0]
        .split()
    )


@pytest.mark.parametrize(("program", "field"), REQUIRED, ids=ids(REQUIRED))
def test_required_settings_reject_none(program, field):
    kind = KINDS[program]
    assert "unsets" not in recipe_flags.describe_flag(field, kind)
    try:
        config = parse(kind, f"--{field.name}=none")
    except (flags.Error, RecipeError) as error:
        assert "\n" not in str(error)
    else:
        # For text settings, none is a value, such as the norm `none`.
        assert getattr(config, field.name) == "none"


@pytest.mark.parametrize("program", KINDS)
def test_missing_length_is_an_error(program):
    with pytest.raises(RecipeError, match="either train_epochs or train_steps"):
        parse(KINDS[program], "--train_steps=none", "--train_epochs=none")


def test_other_length_replaces_an_unset_one():
    preset = "--preset=frn_resnet50v2"
    assert parse(Config, preset).train_steps == 300_000
    config = parse(Config, preset, "--train_steps=none", "--train_epochs=7")
    assert (config.train_steps, config.train_epochs) == (None, 7)
    assert config_lib.make_config(DetectionConfig, {}, {"train_epochs": 5}) == (
        config_lib.make_config(DetectionConfig, {"train_epochs": 5})
    )


# A sweep sets the settings of a single command itself.
VARIED = [
    (p, f)
    for p, f in KEPT
    if p == "imagenet" and f.metadata["on_resume"] != PER_COMMAND
]


@pytest.mark.parametrize("field", [f for _, f in VARIED], ids=ids(VARIED))
def test_a_sweep_varies_none(field, tmp_path):
    value = example(field)
    text = f"--{field.name}={value} | none"
    program = PROGRAMS["imagenet"]
    axis = grid.parse_axis(text, program)
    assert axis == [{field.name: value}, {field.name: None}]
    given = {"preset": "digits"}
    if field.name == "convert_to":
        given["init_model"] = "model.keras"
    if field.name in OTHER_LENGTH:
        # The run without this length needs the other one.
        axis[1][OTHER_LENGTH[field.name]] = 3
    first, second = grid.make_cells(program, tmp_path, given, [axis])
    assert getattr(first.config, field.name) == value
    assert getattr(second.config, field.name) is None
    assert f"--{field.name}=none" in second.command
    # The printed command makes the same run.
    for cell in (first, second):
        arguments = [grid.format_argument(*s) for s in cell.settings.items()]
        assert parse(Config, *arguments) == cell.config


def test_a_sweep_lists_the_commands():
    code, output, errors = finish(
        "--preset=digits",
        "--vary=--virtual_replicas=4 | none",
        "--list",
        program="sweep.py",
    )
    assert code == 0, errors
    lines = output.splitlines()
    assert "--virtual_replicas=4 " in lines[0]
    assert "--virtual_replicas=none " in lines[1]


def test_workers_accept_a_preset_with_unset_replicas(tmp_path):
    """`virtual_replicas` is not supported on several machines."""
    given = ("--preset=digits", "--strategy=multi_worker")
    with pytest.raises(RecipeError, match="--virtual_replicas=none"):
        distribution.make_strategy(parse(Config, *given))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, output, errors = finish(
        *given,
        *FAST,
        "--virtual_replicas=none",
        "--dry_run",
        f"--workdir={tmp_path}",
        TF_CONFIG=cluster([port], 0),
    )
    assert code == 0, errors
    assert "dry run: nothing was trained" in output
    assert "virtual_replicas" not in output
