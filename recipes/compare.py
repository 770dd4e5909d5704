"""Compares runs of a training program, finished or not: curves and a table.

Usage: python recipes/compare.py WORKDIR... [--out=FOLDER]

Each WORKDIR is the workdir of a run, or a folder that contains workdirs at any
depth. Runs that differ only in --seed share one curve and one row of the table,
with their mean and sample standard deviation.

Examples:

  # Two runs
  python recipes/compare.py runs/digits-resnet20_cifar-frn runs/bn

  # All runs in several folders, finished or not
  python recipes/compare.py runs/seed_* runs/sweep --out=runs/sweep/compare

Prints the table, and writes compare.png and compare.html to --out. The page is
a single file.
"""

import pathlib
import shutil
import sys

if __package__ in (None, ""):
    # Run as a file: imports start at the folder above this one.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from recipes import errors  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402


def format_help():
    lines = recipe_flags.help_entry("out", flags.FLAGS["out"].help)
    return "\n".join([__doc__.strip(), "", "Flags:", *lines])


def run(paths, out):
    """Compares the runs in folders, prints the table and writes the page."""
    from recipes.experiments import comparison
    from recipes.experiments.programs import CONFIG_CLASSES
    from recipes.run_dir import recorded_run

    if not paths:
        raise errors.RecipeError(
            "no runs given. Usage: python recipes/compare.py WORKDIR... "
            "[--out=FOLDER], see --help."
        )
    found, faults = recorded_run.load_runs(
        recorded_run.find_workdirs(paths), CONFIG_CLASSES
    )
    folder = pathlib.Path(out).expanduser()
    table, notes = comparison.write_comparison(found, folder, faults)
    width = shutil.get_terminal_size().columns
    print(table.to_string(line_width=width if sys.stdout.isatty() else None))
    for note in notes:
        print(f"note: {note}")
    print(f"figure: {folder}/compare.png\npage: {folder}/compare.html")


def main(argv):
    with errors.exit_on_error():
        try:
            run(argv[1:], flags.FLAGS.out)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    flags.DEFINE_string(
        "out",
        "runs/compare",
        "Folder for compare.png and compare.html, created if necessary. "
        "(default: runs/compare)",
    )
    recipe_flags.define_help(format_help)
    app.run(main)
