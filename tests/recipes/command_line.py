"""A program of the recipes as a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

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
    """The running program, a file in recipes/."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "recipes" / program), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )


def finish(*arguments, program=IMAGENET, **environment):
    """Runs the program to its end: exit code, output, errors."""
    with start(*arguments, program=program, **environment) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors


def cluster(ports, index):
    """TF_CONFIG of a worker on the loopback."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps(
        {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
    )
