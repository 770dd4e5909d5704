"""Runs recipes/imagenet.py over a grid of settings, some runs at a time.

Every flag of recipes/imagenet.py is one of the sweep and goes to all its runs;
each --vary names flags that differ. Every combination is a run, in a process
and a workdir of its own. A sweep that was stopped goes on with the same
command; a run that failed leaves the others alone, and is tried again by it.

Examples:

  # Two norms, three seeds, digits, two runs at a time
  python recipes/sweep.py --preset=digits --vary="--norm=bn | frn" \\
      --vary="--seed=0 | 1 | 2" --jobs=2 --out=runs/digits-sweep

  # The FRN paper's batch sizes on ImageNet, 8 GPUs for one run after another
  python recipes/sweep.py --preset=frn_resnet50v2 --train_epochs=60 \\
      --vary="--norm=bn | gn | frn | frn --activation=relu" \\
      --vary="--replica_batch_size=32 | 16 | 8 | 4 | 2" --out=runs/batch

  # What would be run?
  python recipes/sweep.py --preset=digits --vary="--norm=bn | frn" --list

The learning rate follows the batch size in every run, and runs of different
batch sizes see as many examples: their length is in epochs. --out gets
results.json, table.md, table.png and curves.png, that by values of --x where
runs are many; recipes/compare.py draws any of the runs.
"""

import pathlib
import shlex
import signal
import sys

if __package__ in (None, ""):
    # Run as a file: what is imported lies beside this folder, not in it.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from recipes.classification.config import Config  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.errors import explain_disk_errors  # noqa: E402

OWN = ("vary", "out", "jobs", "x", "log_every_examples", "list")

flags.DEFINE_multi_string(
    "vary",
    [],
    "Flags of recipes/imagenet.py, alternatives separated by |; may be given "
    "several times. One that begins without dashes begins with a value of the "
    "first flag: '--norm=bn | frn | frn --activation=relu'. "
    "--replica_batch_size is one of them here: images a step and replica.",
)
flags.DEFINE_string(
    "out", "runs/sweep", "Folder of the sweep. (default: runs/sweep)"
)
flags.DEFINE_integer(
    "jobs",
    1,
    "Runs at a time; GPUs, or without any the cores, are shared out among "
    "them. (default: 1)",
    lower_bound=1,
)
flags.DEFINE_string(
    "x",
    None,
    "The varied flag along the x axis and the columns of the table. (default: "
    "the first one with several numbers, but for --seed)",
)
flags.DEFINE_integer(
    "log_every_examples",
    None,
    "How many images a run trains on from a row of its records to the next; "
    "instead of --log_every_steps, so that runs of all batch sizes write as "
    "many.",
    lower_bound=1,
)
flags.DEFINE_bool("list", False, "Print the command of each run, and stop.")


def help_text():
    entries = [
        recipe_flags.help_entry(name, flags.FLAGS[name].help) for name in OWN
    ]
    lines = [line for entry in entries for line in entry]
    return "\n".join(
        [
            __doc__.strip(),
            "",
            "Flags:",
            *lines,
            "",
            "and every flag of recipes/imagenet.py: see its --help.",
        ]
    )


recipe_flags.define_setting_flags(flags.FLAGS, Config)
recipe_flags.define_help(help_text)


def main(argv):
    try:
        if len(argv) > 1:
            raise RecipeError(
                f"unexpected argument {argv[1]!r}: every setting is a flag, "
                "see --help."
            )
        with explain_disk_errors():
            failed = _sweep(flags.FLAGS)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on")
        sys.exit(130)
    if failed:
        lines = [
            f"  {job.cell.name}: {job.error} ({job.log})" for job in failed
        ]
        print(
            "error: some runs failed, the same command tries them again:",
            *lines,
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(1)


def _sweep(values):
    """Flags to cells, to runs; the jobs that failed."""
    from recipes.experiments import grid
    from recipes.experiments import resources as shares_lib

    if not values.out:
        raise RecipeError("--out needs the name of a folder.")
    given = recipe_flags.given_settings(values, Config)
    axes = [grid.parse_axis(text) for text in values.vary]
    shares = shares_lib.make(values.jobs)
    folder = pathlib.Path(values.out).expanduser()
    cells = grid.make(
        folder,
        given,
        axes,
        num_devices=shares[0].num_gpus or 1,
        log_every_examples=values.log_every_examples,
    )
    if values.x is not None and values.x not in cells[0].varied:
        raise RecipeError(
            f"--x={values.x} is not varied. Varied: "
            f"{', '.join(cells[0].varied) or 'nothing'}"
        )
    if values.list:
        print("\n".join(cell.command for cell in cells))
        return []
    # Figures take longer to import than a mistake to be found.
    from recipes.experiments import run_sweep
    from recipes.experiments import scheduler as jobs_lib

    command = shlex.join(["python", *sys.argv])
    jobs = run_sweep.run(cells, folder, shares, command, values.x)
    return [job for job in jobs if job.status == jobs_lib.FAILED]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(main)
