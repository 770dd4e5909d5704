"""Compares runs of recipes/imagenet.py, finished or not: curves and a table.

Usage: python recipes/compare.py WORKDIR... [--out=FOLDER]

A WORKDIR is that of a run, or a folder with workdirs at any depth. Runs that
differ in nothing but --seed are one curve and one row: their mean and spread.

Examples:

  # Two runs
  python recipes/compare.py runs/digits-resnet20_cifar-frn runs/bn

  # Every run of some folders, finished or not
  python recipes/compare.py runs/seed_* runs/sweep --out=runs/sweep/compare

The table is printed; compare.png and compare.html go to --out. The page needs
no other file.
"""

import pathlib
import sys

if __package__ in (None, ""):
    # Run as a file: what is imported lies beside this folder, not in it.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402

flags.DEFINE_string(
    "out",
    "runs/compare",
    "Folder that compare.png and compare.html go to; made where it is not "
    "there. (default: runs/compare)",
)


def help_text():
    lines = recipe_flags.help_entry("out", flags.FLAGS["out"].help)
    return "\n".join([__doc__.strip(), "", "Flags:", *lines])


recipe_flags.define_help(help_text)


def run(paths, out):
    """Workdirs to groups, to a table and a page."""
    from rich.console import Console

    from recipes.experiments import aggregate as groups_lib
    from recipes.experiments import cautions
    from recipes.experiments import compare_report
    from recipes.experiments.programs import CONFIG_CLASSES
    from recipes.run_dir import runs

    found, faults = runs.load_all(runs.find(paths), CONFIG_CLASSES)
    groups = groups_lib.make(found)
    folder = pathlib.Path(out).expanduser()
    figure, page = compare_report.write(groups, folder, faults)
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 200  # A file has room for the whole table.
    compare_report.show(groups, console)
    for sentence in [*faults, *cautions.find(groups)]:
        console.print(f"note: {sentence}", markup=False)
    console.print(f"figure: {figure}\npage: {page}", markup=False)


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
    app.run(main)
