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

from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402


def define_flags():
    flags.DEFINE_string(
        "out",
        "runs/compare",
        "Folder for compare.png and compare.html, created if necessary. "
        "(default: runs/compare)",
    )
    recipe_flags.define_help(format_help)


def format_help():
    lines = recipe_flags.help_entry("out", flags.FLAGS["out"].help)
    return "\n".join([__doc__.strip(), "", "Flags:", *lines])


def run(paths, out):
    """Compares the runs in folders, prints the table and writes the page."""
    from recipes.experiments import aggregate
    from recipes.experiments import compare_report
    from recipes.experiments.programs import CONFIG_CLASSES
    from recipes.run_dir import recorded_run

    found, faults = recorded_run.load_runs(
        recorded_run.find_workdirs(paths), CONFIG_CLASSES
    )
    program = aggregate.get_program(found)
    folder = pathlib.Path(out).expanduser()
    figure, page, table, notes = compare_report.write_comparison(
        aggregate.group_runs(found), program, folder, faults
    )
    width = shutil.get_terminal_size().columns
    print(table.to_string(line_width=width if sys.stdout.isatty() else None))
    for note in notes:
        print(f"note: {note}")
    print(f"figure: {figure}\npage: {page}")


def main(argv):
    try:
        if len(argv) < 2:
            raise RecipeError(
                "no runs given. Usage: python recipes/compare.py WORKDIR... "
                "[--out=FOLDER], see --help."
            )
        run(argv[1:], flags.FLAGS.out)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    define_flags()
    app.run(main)
