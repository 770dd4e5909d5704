"""What a sweep starts in the place of recipes/imagenet.py: no training.

It leaves the files of a run, holds its workdir, and saves on SIGTERM. A file
`behaviour.json` in the folder of the sweep says what a run does, by its name:

* end: ends well, with an accuracy of (seed + 1) tenths
* wait: waits for SIGTERM the first time, ends well the second
* stubborn: waits for SIGKILL
* mistake: prints an error, another line, and fails
* silent: fails without a word
* lie: exits with 0 and has trained nothing
"""

import fcntl
import json
import pathlib
import signal
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent.parent
sys.path[0] = str(ROOT)

from recipes.classification.config import Config  # noqa: E402
from tests.recipes.command_line import parse_flags  # noqa: E402


def main(argv):
    config = parse_flags(Config, *argv[1:])
    folder = config.folder
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / "starts.jsonl").open("a") as file:
            file.write(json.dumps(argv[1:]) + "\n")
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        behaviours = folder.parent / "behaviour.json"
        behaviour = "end"
        if behaviours.exists():
            every = json.loads(behaviours.read_text())
            behaviour = every.get(folder.name, "end")
        sys.exit(BEHAVIOURS[behaviour](config))


def end(config):
    row = {
        "step": config.train_steps,
        "epoch": 1.0,
        "train/loss": 1.0,
        "train/images_per_second": 100.0,
        "eval/accuracy": (config.seed + 1) / 10,
        "eval/loss": 2.0,
    }
    with (config.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    summary = {
        "last": row,
        "seconds": 1.0,
        "parameters": 362,
        "num_replicas": 1,
        "peak_memory_bytes": 2**20,
    }
    (config.folder / "summary.json").write_text(json.dumps(summary))
    print("ended")
    return 0


def wait(config):
    saved = config.folder / "saved"
    if saved.exists():
        return end(config)

    def save(number, frame):
        time.sleep(0.3)
        saved.touch()
        print("SIGTERM: saved after step 1", flush=True)
        sys.exit(143)

    signal.signal(signal.SIGTERM, save)
    (config.folder / "waiting").touch()
    while True:
        time.sleep(0.05)


def stubborn(config):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("training", flush=True)
    (config.folder / "waiting").touch()
    while True:
        time.sleep(0.05)


def mistake(config):
    print("error: the norm is of no use\n\nrather at last", flush=True)
    return 1


def silent(config):
    return 3


def lie(config):
    print("nothing to do")
    return 0


BEHAVIOURS = {
    each.__name__: each for each in (end, wait, stubborn, mistake, silent, lie)
}

if __name__ == "__main__":
    main(sys.argv)
