"""Runs the demo commands, and records their results and wall times.

Without names, all commands are run. --json keeps the entries of the others.

  python benchmarks/demos.py
  python benchmarks/demos.py demo test
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks import layers_report  # noqa: E402
from benchmarks import tables  # noqa: E402
from recipes import atomic_io  # noqa: E402

DIGITS = ("recipes/imagenet.py", "--preset=digits")
TREES = ("recipes/coco.py", "--preset=trees")
# By name: the displayed command, and the equivalent Python arguments.
COMMANDS = {
    "demo": ("make demo", DIGITS),
    "rbn": (f"python {' '.join(DIGITS)} --norm=rbn", (*DIGITS, "--norm=rbn")),
    "bn": (f"python {' '.join(DIGITS)} --norm=bn", (*DIGITS, "--norm=bn")),
    "detection": ("make demo-detection", TREES),
}
TESTS = ("-m", "pytest", "-n", "auto", "--maxprocesses=4", "--dist=worksteal")
PASSED = re.compile(r"(\d+) passed")


def train(arguments, data_dir):
    """Trains a recipe and returns its wall time and result."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--workdir={folder}/run", f"--data_dir={data_dir}"]
        start = time.perf_counter()
        run([*arguments, *options])
        seconds = time.perf_counter() - start
        text = pathlib.Path(folder, "run", "summary.json").read_text()
    last = json.loads(text)["last"]
    if "eval/accuracy" in last:
        return seconds, f"{last['eval/accuracy']:.2%} top-1"
    return seconds, f"{last['eval/AP50']:.1%} AP50"


def test():
    """Runs the tests and returns their wall time and result."""
    start = time.perf_counter()
    printed = run(TESTS)
    (passed,) = PASSED.findall(printed.splitlines()[-1])
    return time.perf_counter() - start, f"{int(passed):,} tests pass"


def run(arguments):
    """Runs Python in the repository and returns its output."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [*COMMANDS, "test"]
    parser.add_argument(
        "names", nargs="*", metavar="name", help=", ".join(names)
    )
    parser.add_argument("--data_dir", default="runs/data")
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(
            f"{', '.join(unknown)}: unknown. Choose from {', '.join(names)}"
        )
    path = options.json and pathlib.Path(options.json)
    rows = {}
    if path and path.exists():
        rows = {r["name"]: r for r in json.loads(path.read_text())["rows"]}
    for name in options.names or names:
        shown = "make test"
        if name == "test":
            seconds, result = test()
        else:
            shown, arguments = COMMANDS[name]
            seconds, result = train(arguments, options.data_dir)
        rows[name] = {
            "name": name,
            "command": shown,
            "outcome": result,
            "seconds": seconds,
        }
    content = {
        "command": "python benchmarks/demos.py",
        "environment": layers_report.environment(),
        "rows": [rows[name] for name in names if name in rows],
    }
    print(tables.demos(content))
    if path:
        atomic_io.write_text(path, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
