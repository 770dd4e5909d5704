"""A stand-in for recipes/imagenet.py that does not train.

It writes the files of a run, locks its workdir, and saves on SIGTERM. The file
`behavior.json` in the sweep's folder selects a behavior by the run's name:

* end: ends successfully, with an accuracy of (seed + 1) / 10
* wait: waits for SIGTERM at the first start, ends successfully at the second
* slow: ignores SIGTERM and ends successfully after half a second
* stubborn: waits for SIGKILL
* mistake: prints an error and another line, and fails
* silent: fails without output
* lie: exits with 0 without having trained
"""

import fcntl
import json
import pathlib
import signal
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent.parent
sys.path[0] = str(ROOT)

from absl import flags  # noqa: E402

from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.experiments.programs import PROGRAMS  # noqa: E402
from recipes.run_dir import run_dir  # noqa: E402


def main(argv):
    values = flags.FlagValues()
    config_class = PROGRAMS["imagenet"].config
    recipe_flags.define_setting_flags(values, config_class)
    values(argv)
    settings = recipe_flags.given_settings(values, config_class)
    config = run_dir.resolve_config(config_class, settings)
    folder = config.folder
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / "starts.jsonl").open("a") as file:
            file.write(json.dumps(argv[1:]) + "\n")
        run_dir.write_config(config)
        behaviors = folder.parent / "behavior.json"
        behavior = "end"
        if behaviors.exists():
            every = json.loads(behaviors.read_text())
            behavior = every.get(folder.name, "end")
        sys.exit(BEHAVIORS[behavior](config))


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


def slow(config):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (config.folder / "waiting").touch()
    time.sleep(0.5)
    return end(config)


def stubborn(config):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("training", flush=True)
    (config.folder / "waiting").touch()
    while True:
        time.sleep(0.05)


def mistake(config):
    print("error: the norm is of no use\n\nlast line", flush=True)
    return 1


def silent(config):
    return 3


def lie(config):
    print("nothing to do")
    return 0


BEHAVIORS = {
    each.__name__: each
    for each in (end, wait, slow, stubborn, mistake, silent, lie)
}

if __name__ == "__main__":
    main(sys.argv)
