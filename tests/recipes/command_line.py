"""Runs a program of the recipes in its own process, and parses its flags."""

import json
import os
import pathlib
import subprocess
import sys

from absl import flags

from recipes.config import flags as recipe_flags
from recipes.run_dir import run_dir

ROOT = pathlib.Path(__file__).parent.parent.parent
IMAGENET, COCO = "imagenet.py", "coco.py"
FAST = (
    "--dataset=digits",
    "--model=resnet2_cifar",
    "--image_size=8",
    "--global_batch_size=64",
    "--log_every_steps=1",
)


def start(*arguments, program=IMAGENET, **environment):
    """Starts a program in recipes/ as from a user's shell; returns it."""
    inherited = dict(os.environ)
    inherited.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "recipes" / program), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**inherited, **environment},
        text=True,
    )


def finish(*arguments, program=IMAGENET, **environment):
    """Runs a program to its end; returns exit code, output and errors."""
    with start(*arguments, program=program, **environment) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors


def cluster(ports, index):
    """Returns the TF_CONFIG of a worker on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps(
        {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
    )


def parse_flags(config_class, *arguments):
    """Returns the config of a command line, without global flags."""
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, config_class)
    assert values(["program", *arguments]) == ["program"]
    settings = recipe_flags.given_settings(values, config_class)
    return run_dir.resolve_config(config_class, settings)
