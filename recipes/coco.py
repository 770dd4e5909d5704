"""Trains a RetinaNet with any normalization, on one device or several.

Examples:

  # Trees on aerial photos with FRN, two replicas on one CPU, a few minutes
  python recipes/coco.py --preset=trees

  # The FRN paper's ResNet-101 with a pyramid on COCO, every GPU of this machine
  python recipes/coco.py --preset=frn_resnet101_64 --data_dir=/data

  # Boxes of your own, in COCO's JSON
  python recipes/coco.py --preset=frn_resnet50 --dataset=folder:/data/boxes

  # Objects on further images, in the workdir's predict.csv and predict.json
  python recipes/coco.py --workdir=WORKDIR --mode=predict --images=FOLDER

A run that was stopped goes on with the same command, or with --workdir alone.
Its workdir holds config.json, metrics.jsonl, summary.json, TensorBoard events,
model.keras, predictions.json and report.html.
"""

import os
import pathlib
import sys

if __package__ in (None, ""):
    # Run as a file: what is imported lies beside this folder, not in it.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
# Without a GPU, TensorFlow reports as an error that it found none.
quiet = "2" if pathlib.Path("/dev/nvidiactl").exists() else "3"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", quiet)
os.environ["KERAS_BACKEND"] = "tensorflow"

from absl import app  # noqa: E402

from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.detection.config import DetectionConfig  # noqa: E402
from recipes.training import runner  # noqa: E402


def run(config):
    """Runs a config and returns its `Result`."""
    # TensorFlow takes seconds to import, which --help does not need.
    from recipes.detection.task import ObjectDetection

    return runner.run(config, ObjectDetection())


if __name__ == "__main__":
    recipe_flags.define(__doc__, DetectionConfig)
    app.run(runner.main(DetectionConfig, run))
