"""Parsing of --vary, and the runs of a grid."""

import shlex
import subprocess
import sys

import pytest
from absl import flags

from recipes.config import flags as recipe_flags
from recipes.errors import RecipeError
from recipes.experiments import grid
from recipes.experiments import run_sweep
from recipes.experiments.programs import PROGRAMS
from recipes.run_dir import run_dir
from tests.recipes.command_line import ROOT
from tests.recipes.experiments.small_sweeps import make_cells

PROGRAM = PROGRAMS["imagenet"]
JSON = '--norm_kwargs=\'{"epsilon": 1e-5, "axes": [1, 2]}\''


def make(*axes, given=None, **kwargs):
    given = {"train_epochs": 1, **(given or {})}
    parsed = [grid.parse_axis(axis, PROGRAM) for axis in axes]
    return grid.make_cells(PROGRAM, "out", given, parsed, **kwargs)


def typed(command):
    """Parses a command by a shell into the settings it gives to the program."""
    head = "python recipes/imagenet.py "
    assert command.startswith(head)
    done = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + command.removeprefix(head)],
        capture_output=True,
        text=True,
        check=True,
    )
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, PROGRAM.config)
    values(["imagenet.py", *done.stdout.split("\0")[:-1]])
    return recipe_flags.given_settings(values, PROGRAM.config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--norm=bn", [{"norm": "bn"}]),
        ("--norm=bn|frn", [{"norm": "bn"}, {"norm": "frn"}]),
        (
            " --norm=bn | frn --activation=relu | --model=vgg_a ",
            [
                {"norm": "bn"},
                {"norm": "frn", "activation": "relu"},
                {"model": "vgg_a"},
            ],
        ),
        ("--xla | --noxla", [{"xla": True}, {"xla": False}]),
        (
            "--learning_rate=0.1 | 1e-3 | 2",
            [{"learning_rate": value} for value in (0.1, 0.001, 2.0)],
        ),
        (
            f"--norm=gn {JSON} | bn",
            [
                {
                    "norm": "gn",
                    "norm_kwargs": {"epsilon": 1e-5, "axes": [1, 2]},
                },
                {"norm": "bn"},
            ],
        ),
        (
            '--norm_kwargs=\'{"a": "it\\\'s | b"}\' --norm=bn | {}'.replace(
                "\\'", ""
            ),
            [
                {"norm_kwargs": {"a": "its | b"}, "norm": "bn"},
                {"norm_kwargs": {}},
            ],
        ),
        ('--dataset="folder:/a | b"', [{"dataset": "folder:/a | b"}]),
        (
            "--replica_batch_size=32 | 8",
            [{"replica_batch_size": 32}, {"replica_batch_size": 8}],
        ),
    ],
)
def test_alternatives_are_parsed_into_settings(text, expected):
    assert grid.parse_axis(text, PROGRAM) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--nrm=bn", "Unknown command line flag 'nrm'"),
        ("--seed=a", "invalid literal for int"),
        ("--seed=0 | 1.5", "invalid literal for int"),
        ("--learning_rate=fast", "could not convert string to float"),
        ("--replica_batch_size=0", "replica_batch_size=0"),
        ("--xla=perhaps", "Non-boolean argument"),
        ("--norm=bn | bn", "has '--norm=bn' twice"),
        ("--norm=bn | --norm=bn", "has '--norm=bn' twice"),
        ("--learning_rate=1 | 1.0", "has '--learning_rate=1.0' twice"),
        ("bn | frn", "--vary takes flags"),
        ("", "--vary takes flags"),
        ("--norm=bn |", "--vary takes flags"),
        ("--xla | yes", "--vary takes flags"),
        ("--norm=bn frn", "unexpected argument 'frn'"),
        ("--norm='bn", "No closing quotation"),
        ("--norm_kwargs={", "must be JSON"),
        ("--norm_kwargs=[1]", "must be a JSON object"),
    ],
)
def test_invalid_alternatives_raise_a_one_line_error(text, message):
    with pytest.raises(RecipeError) as caught:
        grid.parse_axis(text, PROGRAM)
    assert message in str(caught.value)
    assert "--vary" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "given", "message"),
    [
        (("--seed=0", "--seed=1"), {}, "--seed is varied twice"),
        (
            ("--norm=bn", "--seed=1 | 2 --norm=gn"),
            {},
            "--norm is varied twice",
        ),
        (("--workdir=a | b",), {}, "--workdir cannot be set"),
        (("--mode=train",), {}, "--mode cannot be set"),
        ((), {"mode": "eval"}, "--mode cannot be set"),
        ((), {"workdir": "a"}, "--workdir cannot be set"),
        ((), {"dry_run": True}, "--dry_run cannot be set"),
        ((), {"checkpoint": "best"}, "--checkpoint cannot be set"),
        ((), {"export_format": "onnx"}, "--export_format cannot be set"),
        ((), {"strategy": "multi_worker"}, "a sweep runs on one machine"),
        (
            ("--strategy=mirrored | multi_worker",),
            {},
            "a sweep runs on one machine",
        ),
        (
            ("--replica_batch_size=2",),
            {"global_batch_size": 8},
            "set either --global_batch_size",
        ),
        (
            ("--replica_batch_size=2", "--global_batch_size=4"),
            {},
            "set either --global_batch_size",
        ),
        (
            ("--replica_batch_size=2",),
            {"strategy": "tpu"},
            "--replica_batch_size does not support --strategy=tpu",
        ),
        (
            ("--global_batch_size=2 | 4",),
            {"train_epochs": None, "train_steps": 3},
            "set --train_epochs. Received: train_steps=3, batch sizes 2, 4",
        ),
        (
            ("--replica_batch_size=2 | 4",),
            {"preset": "frn_resnet50v2", "train_epochs": None},
            "set --train_epochs",
        ),
        (("--schedule=cosin",), {}, "schedule=cosin: .*Did you mean 'cosine'"),
        (("--preset=digit",), {}, "unknown preset 'digit'"),
        ((), {"preset": "digit"}, "unknown preset 'digit'"),
        (("--train_steps=2",), {}, "either train_epochs or train_steps"),
        (
            ("--dataset=folder:/a | folder//a",),
            {},
            "two runs would have the workdir dataset=folder_a",
        ),
    ],
)
def test_invalid_grids_raise_a_one_line_error(axes, given, message):
    given = {"train_epochs": 1, **given}
    given = {name: value for name, value in given.items() if value is not None}
    parsed = [grid.parse_axis(axis, PROGRAM) for axis in axes]
    with pytest.raises(RecipeError, match=message) as caught:
        grid.make_cells(PROGRAM, "out", given, parsed)
    assert "\n" not in str(caught.value)


def test_log_every_examples_excludes_log_every_steps():
    for axes, given in (
        ((), {"log_every_steps": 3}),
        (("--log_every_steps=3",), {}),
    ):
        with pytest.raises(RecipeError, match="either --log_every_examples"):
            make(*axes, given=given, log_every_examples=100)


def test_every_combination_is_a_run_and_the_last_axis_varies_fastest():
    made = make("--norm=bn | frn --activation=relu", "--seed=0 | 1")
    assert [cell.name for cell in made] == [
        "norm=bn-seed=0",
        "norm=bn-seed=1",
        "norm=frn-activation=relu-seed=0",
        "norm=frn-activation=relu-seed=1",
    ]
    last = made[-1]
    assert last.varied == {"norm": "frn", "activation": "relu", "seed": 1}
    assert last.settings == {
        "train_epochs": 1,
        **last.varied,
        "workdir": "out/norm=frn-activation=relu-seed=1",
    }
    config = last.config
    assert (config.norm, config.activation, config.seed) == ("frn", "relu", 1)
    assert str(config.folder) == last.settings["workdir"]
    # Settings of one alternative do not leak into the others.
    assert made[0].config.activation == "auto"


def test_a_grid_without_axes_has_one_run():
    (cell,) = make()
    assert cell.name == "run" and cell.varied == {}


def test_varied_settings_override_given_ones_and_the_preset():
    made = make(
        "--norm=bn | --norm=frn --learning_rate=0.2",
        given={"preset": "digits", "learning_rate": 0.1},
    )
    assert [cell.config.learning_rate for cell in made] == [0.1, 0.2]
    assert {cell.config.model for cell in made} == {"resnet20_cifar"}


def test_added_alternatives_do_not_change_the_other_workdirs():
    few = make("--norm=bn | rbn", "--seed=0")
    more = make(f"--norm=gn {JSON} | rbn | frn | bn", "--seed=2 | 1 | 0")
    assert len(more) == 12
    for cell in few:
        (same,) = (each for each in more if each.varied == cell.varied)
        assert same.settings == cell.settings and same.name == cell.name


def test_long_names_are_shortened_and_stay_unique():
    kwargs = '{"note": "' + "long " * 30 + '%s"}'
    axis = " | ".join(f"--norm_kwargs='{kwargs % end}'" for end in "ab")
    first, second = make(axis)
    assert first.name != second.name
    assert first.name[:100] == second.name[:100]
    assert len(first.name) == len(second.name) == grid.MAX_NAME_LENGTH
    assert make(axis)[0].name == first.name
    fits = '--norm_kwargs=\'{"a": "' + "b" * 100 + "\"}'"
    assert make(fits)[0].name == "norm_kwargs=_a_" + "b" * 100


@pytest.mark.parametrize(
    ("given", "num_devices", "expected"),
    [
        ({}, 1, 8),
        ({}, 4, 32),
        ({"virtual_replicas": 2}, 4, 16),
        ({"num_replicas": 3}, 4, 24),
        ({"num_replicas": 3, "virtual_replicas": 4}, 1, 24),
        ({"strategy": "one_device"}, 4, 8),
        ({"strategy": "one_device", "virtual_replicas": 2}, 4, 8),
        ({"preset": "digits"}, 4, 16),
    ],
)
def test_replica_batch_size_sets_the_global_batch_size(
    given, num_devices, expected
):
    (cell,) = make(
        "--replica_batch_size=8", given=given, num_devices=num_devices
    )
    assert cell.config.global_batch_size == expected
    assert cell.settings["global_batch_size"] == expected
    assert cell.varied == {"replica_batch_size": 8}
    assert "replica" in cell.name and "--replica_batch" not in cell.command


def test_replica_batch_size_can_be_varied_with_the_replicas():
    made = make("--replica_batch_size=8", "--virtual_replicas=1 | 2")
    assert [cell.config.global_batch_size for cell in made] == [8, 16]


def test_log_every_examples_sets_log_every_steps():
    made = make("--global_batch_size=512 | 64 | 2", log_every_examples=640)
    assert [cell.config.log_every_steps for cell in made] == [1, 10, 320]
    (preset,) = make(given={"preset": "digits"}, log_every_examples=6400)
    assert preset.config.log_every_steps == 100
    assert make(given={"preset": "digits"})[0].config.log_every_steps == 5


def test_runs_of_one_batch_size_can_have_a_length_in_steps():
    axis = grid.parse_axis("--norm=bn | frn", PROGRAM)
    made = grid.make_cells(PROGRAM, "out", {"train_steps": 3}, [axis])
    assert [cell.config.train_steps for cell in made] == [3, 3]


def test_commands_repeat_the_settings():
    made = make(
        f"--norm=gn {JSON} | bn",
        "--dataset='folder:/a b/$HOME/x' | digits",
        "--xla | --noxla",
        "--learning_rate=0.1 | 1e-05",
        given={"data_dir": "", "deterministic": False, "keep": 3},
    )
    assert len(made) == 16
    for cell in made:
        assert typed(cell.command) == cell.settings
    assert "--noxla" in made[-1].command and "--xla " not in made[-1].command


@pytest.mark.parametrize(
    ("program", "axis", "nearest"),
    [
        ("imagenet", "--norm=frm", "frn"),
        ("imagenet", "--model=resnet20_cifer", "resnet20_cifar"),
        ("imagenet", "--model=resnet21_cifar", "resnet32_cifar"),
        ("imagenet", "--model=ResNet50v2", "ResNet50V2"),
        ("imagenet", "--dataset=digit", "digits"),
        ("imagenet", "--dataset=cifar11", "cifar10"),
        ("imagenet", "--dataset=floder:x", ""),
        ("imagenet", "--init_model=x.keras --convert_to=frm", "frn"),
        ("coco", "--norm=gm", "gn"),
        ("coco", "--model=ResNet52", "ResNet152"),
        ("coco", "--dataset=tree", "trees"),
    ],
)
def test_unknown_names_are_refused_before_the_first_run(
    tmp_path, program, axis, nearest
):
    program = PROGRAMS[program]
    given = {"train_steps": 1, "dataset": "digits"}
    if program.name == "coco":
        given["dataset"] = "trees"
    for name in grid.parse_axis(axis, program)[0]:
        given.pop(name, None)
    folder = tmp_path / "sweep"
    with pytest.raises(RecipeError) as caught:
        run_sweep.run_sweep(
            grid.make_cells(
                program,
                folder,
                given,
                [grid.parse_axis(f"--seed=0 | {axis}", program)],
            ),
            folder,
            [],
            "",
        )
    text = str(caught.value)
    name, _, value = axis.split()[-1].removeprefix("--").partition("=")
    assert f"unknown {name} '{value}'" in text.replace("--", "")
    assert not nearest or f"Did you mean {nearest}" in text.replace("'", "")
    assert "\n" not in text and not folder.exists()


def test_known_names_load_no_tensorflow():
    code = (
        "import sys\n"
        "from recipes.experiments import grid\n"
        "from recipes.experiments.programs import PROGRAMS\n"
        "axes = {'imagenet': ['--dataset=digits | fake | folder:x', "
        "'--model=vgg_a | resnet20_cifar | resnet_small'], "
        "'coco': ['--dataset=trees | folder:x', '--model=ResNet50']}\n"
        "for name, texts in axes.items():\n"
        "    program = PROGRAMS[name]\n"
        "    parsed = [grid.parse_axis(text, program) for text in texts]\n"
        "    cells = grid.make_cells(program, 'out', {}, parsed)\n"
        "    grid.check_names(cells)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_workdir_with_other_settings_is_refused(tmp_path):
    (cell,) = make_cells(tmp_path, "--norm=bn", momentum=0.5)
    grid.check_workdirs([cell])
    run_dir.write_config(cell.config)
    grid.check_workdirs([cell])
    (other,) = make_cells(tmp_path, "--norm=bn", momentum=0.9)
    with pytest.raises(RecipeError, match="momentum is 0.5 there") as caught:
        grid.check_workdirs([other])
    assert str(caught.value).endswith("Choose another --out.")
    assert "--workdir" not in str(caught.value)


def test_commands_quote_the_folder(tmp_path):
    # A folder can have any name.
    name = tmp_path / 'it\'s a "sweep" $(of) `some`'
    (cell,) = make_cells(name, "--norm=bn")
    assert typed(cell.command)["workdir"] == str(name / "norm=bn")
    assert shlex.split(cell.command)[-1] == f"--workdir={name}/norm=bn"
