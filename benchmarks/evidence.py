"""Trains what docs/results.md tells of, and writes that page.

  make evidence
  python benchmarks/evidence.py --jobs=2
  python benchmarks/evidence.py --detection_only

It fetches the data, trains the classifiers of evidence_grids.py, some at a
time, then the detectors of evidence_detection.py, one after the other, and
writes results.md, results.json and the figures to --docs. Stopped, the same
command goes on; what has ended is not run again. With --detection_only the
detectors alone are trained and their table is printed; the page stays as it is,
until it is made without that flag, which finds them trained.
"""

import argparse
import os
import pathlib
import sys

if __package__ in (None, ""):
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks import evidence_data  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402

# The folder of the detectors' runs.
DETECTION = "detection"


def run(grids, detectors, folder, data_dir, docs, num_jobs):
    """Grids to runs, to what they show, to the page.

    Args:
        grids: Dict from a name to an `evidence_grids.Grid`.
        detectors: `evidence_detection.Detectors`.
        folder: Where the runs have their workdirs.
        data_dir: Where the data is.
        docs: Where the page goes.
        num_jobs: How many runs at a time.

    Returns:
        The jobs that failed; without any, the page is written.

    Raises:
        RecipeError: if a detector was not trained.
    """
    from benchmarks import evidence_calibration
    from benchmarks import evidence_detection
    from benchmarks import evidence_elsewhere
    from benchmarks import evidence_grids
    from benchmarks import evidence_page
    from recipes.experiments import resources
    from recipes.experiments import run_sweep
    from recipes.experiments import scheduler as jobs_lib

    folder = pathlib.Path(folder)
    jobs = {}
    for name, grid in grids.items():
        print(f"{name}:", flush=True)
        cells = evidence_grids.cells(grid, folder / name, data_dir)
        jobs[name] = run_sweep.run(
            cells,
            folder / name,
            resources.make(num_jobs),
            "make evidence",
            grid.x,
        )
    failed = [
        job
        for some in jobs.values()
        for job in some
        if job.status == jobs_lib.FAILED
    ]
    if failed:
        return failed
    detection = evidence_detection.train(
        detectors, folder / DETECTION, data_dir
    )
    trees = [job.cell for job in jobs["trees"]]
    elsewhere = evidence_elsewhere.evaluate(
        trees, folder / evidence_elsewhere.ELSEWHERE, data_dir, num_jobs
    )
    calibrations = {
        name: evidence_calibration.measure(_first_rbn(jobs[name]))
        for name in ("curves", "trees")
    }
    evidence_page.write(
        pathlib.Path(docs),
        grids,
        jobs,
        evidence_elsewhere.spreads(trees, elsewhere),
        calibrations,
        detection,
    )
    return []


def _first_rbn(jobs):
    return next(
        job.cell.config for job in jobs if job.cell.varied["norm"] == "rbn"
    )


def main():
    from benchmarks import evidence_detection
    from benchmarks import evidence_grids

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--folder", default="runs/evidence", help="of the runs' workdirs"
    )
    parser.add_argument(
        "--data_dir", default="runs/data", help="of the data, or to fetch it to"
    )
    parser.add_argument("--docs", default="docs", help="where the page goes")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--detection_only",
        action="store_true",
        help="train the detectors and print their table",
    )
    options = parser.parse_args()
    places = options.folder, options.data_dir, options.docs
    detectors, failed = evidence_detection.DETECTORS, []
    try:
        if options.detection_only:
            folder = pathlib.Path(options.folder) / DETECTION
            runs = evidence_detection.train(detectors, folder, options.data_dir)
            print(evidence_detection.markdown(runs))
        else:
            evidence_data.prepare(options.data_dir)
            grids = evidence_grids.GRIDS
            failed = run(grids, detectors, *places, options.jobs)
    except (RecipeError, evidence_data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped, every run saved; the same command goes on")
        sys.exit(130)
    for job in failed:
        print(f"error: {job.cell.name}: {job.error} ({job.log})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
