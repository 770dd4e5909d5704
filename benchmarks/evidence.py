"""Trains the networks of docs/results.md and writes that page.

  make evidence
  python benchmarks/evidence.py --jobs=2
  python benchmarks/evidence.py --only=detection
  python benchmarks/evidence.py --page_only

Downloads the data, runs the grids of evidence_grids.py one after the other, and
writes results.md, results.json and the figures to --docs. After an
interruption, the same command resumes; finished runs are not repeated. With
--only, it runs some of the grids without writing the page. With --page_only, it
renders results.md from the existing results.json.
"""

import argparse
import json
import os
import pathlib
import sys

if __package__ in (None, ""):
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks import evidence_data  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402

COMMAND = "make evidence"
DPI = 110
# Grids whose figures show curves over the epochs instead of the table.
OVER_EPOCHS = ("curves", "trees")


def run_grids(grids, folder, data_dir, num_jobs):
    """Runs grids one after the other.

    Args:
        grids: Dict from a name to an `evidence_grids.Grid`.
        folder: Path for the workdirs.
        data_dir: Path of the data.
        num_jobs: Number of concurrent classifiers; detectors run one at a time.

    Returns:
        Dict from a name to a list of `scheduler.Job`, each done or failed.
    """
    from benchmarks import evidence_grids
    from recipes.experiments import gpu_assignment
    from recipes.experiments import run_sweep

    jobs = {}
    for name, grid in grids.items():
        print(f"{name}:", flush=True)
        cells = evidence_grids.make_cells(grid, folder / name, data_dir)
        shares = gpu_assignment.make_shares(
            num_jobs if grid.program != "coco" else 1
        )
        jobs[name] = run_sweep.run_sweep(
            cells, folder / name, shares, COMMAND, grid.x
        )
    return jobs


def write_results(grids, jobs, folder, data_dir, docs, num_jobs):
    """Writes results.json, the figures and results.md.

    Args:
        grids: Dict from a name to an `evidence_grids.Grid`.
        jobs: Result of `run_grids`, all of them done.
        folder: Path for the workdirs.
        data_dir: Path of the data.
        docs: Path of the folder to write to.
        num_jobs: Number of concurrent evaluations.
    """
    from benchmarks import evidence_calibration
    from benchmarks import evidence_detection
    from benchmarks import evidence_elsewhere
    from benchmarks import evidence_page
    from recipes import atomic_io
    from recipes.experiments import plots
    from recipes.experiments import results
    from recipes.experiments import run_sweep
    from recipes.experiments.programs import PROGRAMS

    figures = docs / "results"
    figures.mkdir(parents=True, exist_ok=True)
    content = {
        name: run_sweep.collect(some, COMMAND, grids[name].x)
        for name, some in jobs.items()
    }
    content["trees_elsewhere"] = evidence_elsewhere.evaluate(
        [job.cell for job in jobs["trees"]],
        folder / evidence_elsewhere.ELSEWHERE,
        data_dir,
        num_jobs,
    )
    content["calibrations"] = {}
    for name in OVER_EPOCHS:
        rows, scaling, centering = evidence_calibration.measure(
            _get_first_rbn(jobs[name])
        )
        content["calibrations"][name] = rows
        plots.save(scaling, figures / f"scaling_{name}.png", DPI)
        plots.save(centering, figures / f"centering_{name}.png", DPI)
    text = json.dumps(content, indent=1)
    atomic_io.write_text(docs / "results.json", text + "\n")
    for name, table in evidence_page.make_tables(content, grids).items():
        program = PROGRAMS[grids[name].program]
        if name == "detection":
            continue  # Shown as pictures, below.
        if name in OVER_EPOCHS:
            runs = [job.load_run() for job in jobs[name]]
            groups = results.group_runs(runs)
            figure = plots.draw_curves(groups, program)
        else:
            figure = plots.draw_table(table, program.score)
        plots.save(figure, figures / f"{name}.png", DPI)
    config = jobs["detection"][0].cell.config
    evidence_detection.save_pictures(config, figures / "detection.jpg")
    evidence_page.write_page(docs, grids)


def _get_first_rbn(jobs):
    configs = [job.cell.config for job in jobs]
    return next(config for config in configs if config.norm == "rbn")


def parse(arguments, names):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--folder", default="runs/evidence", help="folder for the workdirs"
    )
    parser.add_argument(
        "--data_dir", default="runs/data", help="folder for the data"
    )
    parser.add_argument("--docs", default="docs", help="folder for the page")
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of concurrent runs"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=names,
        help="names of the grids to run, without writing the page",
    )
    parser.add_argument(
        "--page_only",
        action="store_true",
        help="render the page from results.json without training",
    )
    return parser.parse_args(arguments)


def run(grids, options):
    """Does what the options say and returns the failed jobs."""
    from benchmarks import evidence_page

    folder, docs = pathlib.Path(options.folder), pathlib.Path(options.docs)
    if options.page_only:
        evidence_page.write_page(docs, grids)
        return []
    chosen = {n: g for n, g in grids.items() if n in (options.only or grids)}
    jobs = run_grids(chosen, folder, options.data_dir, options.jobs)
    failed = [job for some in jobs.values() for job in some if job.error]
    if not failed and options.only is None:
        write_results(grids, jobs, folder, options.data_dir, docs, options.jobs)
    return failed


def main():
    from benchmarks import evidence_grids

    options = parse(None, list(evidence_grids.GRIDS))
    try:
        if not options.page_only and options.only != ["detection"]:
            evidence_data.prepare(options.data_dir)
        failed = run(evidence_grids.GRIDS, options)
    except (RecipeError, evidence_data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes")
        sys.exit(130)
    for job in failed:
        print(f"error: {job.cell.name}: {job.error} ({job.log})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
