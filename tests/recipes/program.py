"""The program as a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = str(ROOT / "recipes" / "imagenet.py")
FAST = (
    "--dataset=digits",
    "--model=resnet2_cifar",
    "--image_size=8",
    "--global_batch_size=64",
    "--log_every_steps=1",
)


def start(*arguments, **environment):
    """The running program."""
    return subprocess.Popen(
        [sys.executable, PROGRAM, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )


def finish(*arguments, **environment):
    """Runs the program to its end: exit code, output, errors."""
    with start(*arguments, **environment) as process:
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
