"""Runs a training program over a grid of settings, several runs at a time.

All flags of the program are also flags of the sweep, which passes them to every
run. Each --vary names flags that differ between runs. Every combination is one
run with its own process and workdir. After an interruption, the same command
resumes the sweep. A failed run does not affect the others; the same command
runs it again.

Examples:

  # Two norms, three seeds, digits, two runs at a time
  python recipes/sweep.py --preset=digits --vary="--norm=bn | frn" \\
      --vary="--seed=0 | 1 | 2" --jobs=2 --out=runs/digits-sweep

  # The FRN paper's batch sizes on ImageNet, one run at a time on all GPUs
  python recipes/sweep.py --preset=frn_resnet50v2 --train_epochs=60 \\
      --vary="--norm=bn | gn | frn | frn --activation=relu" \\
      --vary="--replica_batch_size=32 | 16 | 8 | 4 | 2" --out=runs/batch

  # Detectors
  python recipes/sweep.py --program=coco --preset=trees \\
      --vary="--norm=frn | gn" --out=runs/trees-sweep

  # Print the commands without running them
  python recipes/sweep.py --preset=digits --vary="--norm=bn | frn" --list

The learning rate scales with the batch size, and runs of different batch sizes
see the same number of examples, because their length is in epochs. The sweep
writes results.json, table.md, table.png and curves.png to --out.
recipes/compare.py compares any of the runs.
"""

import pathlib
import shlex
import signal
import sys

if __package__ in (None, ""):
    # Run as a file: imports start at the folder above this one.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from recipes import errors  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.experiments.programs import PROGRAMS  # noqa: E402

OWN_FLAGS = "program vary out jobs x log_every_examples list".split()


def define_flags(arguments):
    """Defines the flags of the sweep and of its --program."""
    flags.DEFINE_enum(
        "program",
        "imagenet",
        sorted(PROGRAMS),
        "The training program: imagenet trains classifiers, coco trains "
        "detectors. (default: imagenet)",
    )
    flags.DEFINE_multi_string(
        "vary",
        [],
        "Flags of the program that differ between runs, with alternatives "
        "separated by |. An alternative without leading dashes "
        "begins with a value of the first alternative's first flag: '--norm=bn "
        "| frn | frn --activation=relu'. --replica_batch_size, the number of "
        "examples per step and replica, can be varied too.",
    )
    flags.DEFINE_string(
        "out",
        "runs/sweep",
        "Folder of the sweep, with one workdir for each run. (default: "
        "runs/sweep)",
    )
    flags.DEFINE_integer(
        "jobs",
        1,
        "Number of concurrent runs. Each one gets an equal share of the GPUs, "
        "or of the cores without a GPU. (default: 1)",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "x",
        None,
        "Varied flag along the x axis and the columns of the table. (default: "
        "the first one whose values are several numbers, except --seed)",
    )
    flags.DEFINE_integer(
        "log_every_examples",
        None,
        "Number of training examples between two metrics entries. Replaces "
        "--log_every_steps so that runs of all batch sizes log equally often.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "list", False, "Print the command of each run without running it."
    )
    # --program decides which other flags there are.
    values = flags.FlagValues()
    flags.DEFINE_string("program", "imagenet", "", flag_values=values)
    values(arguments, known_only=True)
    program = PROGRAMS.get(values.program, PROGRAMS["imagenet"])
    recipe_flags.define_setting_flags(flags.FLAGS, program.config)
    recipe_flags.define_help(format_help)


def format_help():
    entries = [
        line
        for name in OWN_FLAGS
        for line in recipe_flags.help_entry(name, flags.FLAGS[name].help)
    ]
    last = "and all flags of the program: see its --help."
    return "\n".join([__doc__.strip(), "", "Flags:", *entries, "", last])


def run(values):
    """Runs the sweep of the flags and returns its failed jobs."""
    from recipes.experiments import gpu_assignment
    from recipes.experiments import grid

    if not values.out:
        raise errors.RecipeError(
            "--out needs the name of a folder. Received: out=''"
        )
    program = PROGRAMS[values.program]
    shares = gpu_assignment.make_shares(values.jobs)
    folder = pathlib.Path(values.out).expanduser()
    cells = grid.make_cells(
        program,
        folder,
        recipe_flags.given_settings(values, program.config),
        [grid.parse_axis(text, program) for text in values.vary],
        num_devices=shares[0].num_gpus or 1,
        log_every_examples=values.log_every_examples,
    )
    if values.x is not None and values.x not in cells[0].varied:
        raise errors.RecipeError(
            f"--x={values.x} is not varied. Varied flags: "
            f"{', '.join(cells[0].varied) or 'none'}"
        )
    if values.list:
        print("\n".join(cell.command for cell in cells))
        return []
    # Importing matplotlib takes longer than all checks above.
    from recipes.experiments import run_sweep

    command = shlex.join(["python", *sys.argv])
    jobs = run_sweep.run_sweep(cells, folder, shares, command, values.x)
    return [job for job in jobs if job.error is not None]


def main(argv):
    try:
        with (
            errors.exit_on_error(),
            errors.explain_disk_errors(flags.FLAGS.out),
        ):
            recipe_flags.reject_arguments(argv)
            failed = run(flags.FLAGS)
    except KeyboardInterrupt as interrupt:
        print("\nstopped; the same command resumes the sweep")
        sys.exit(128 + interrupt.args[0])
    if failed:
        print(
            "error: some runs failed; the same command runs them again:",
            *(f"  {job.cell.name}: {job.error} ({job.log})" for job in failed),
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(1)


def _interrupt(number, frame):
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    define_flags(sys.argv)
    app.run(main)
