"""Trains a RetinaNet with any normalization, on one device or several.

Examples:

  # Trees on aerial photos with FRN, two replicas on one CPU, a few minutes
  python recipes/coco.py --preset=trees

  # The FRN paper's RetinaNet with ResNet-101 on COCO, on every GPU
  python recipes/coco.py --preset=frn_resnet101_64 --data_dir=/data

  # Your own boxes in COCO's JSON format
  python recipes/coco.py --preset=frn_resnet50 --dataset=folder:/data/boxes

  # Predict boxes: writes predict.csv and predict.json to the workdir
  python recipes/coco.py --workdir=WORKDIR --mode=predict --images=FOLDER

The same command, or --workdir alone, resumes a run that was stopped.
Its workdir holds config.json, metrics.jsonl, summary.json, TensorBoard events,
model.keras, predictions.json and report.html.
"""

import pathlib
import sys

if __package__ in (None, ""):
    # Run as a file: packages are imported from the parent of this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402

from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.detection.config import DetectionConfig  # noqa: E402
from recipes.training import command_line  # noqa: E402


def run(config):
    """Runs a config and returns its `Result`."""
    # TensorFlow takes seconds to import: --help and flag errors come before.
    from recipes.detection.task import ObjectDetection
    from recipes.training import runner

    return runner.run(config, ObjectDetection())


def main(argv):
    command_line.main(argv, DetectionConfig, run)


if __name__ == "__main__":
    recipe_flags.define_flags(__doc__, DetectionConfig)
    app.run(main)
