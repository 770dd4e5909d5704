"""Trains an image classifier with any normalization, on one device or several.

Examples:

  # ResNet-20 with FRN on embedded digits, two replicas on one CPU
  python recipes/imagenet.py --preset=digits

  # The FRN paper's ResNetV2-50 on ImageNet, on every GPU of this machine
  python recipes/imagenet.py --preset=frn_resnet50v2 --data_dir=/data

  # The same network and schedule with Representative Batch Normalization
  python recipes/imagenet.py --preset=frn_resnet50v2 --norm=rbn

  # Your own images: PATH/train/<label>/*.jpg, PATH/validation/<label>/*.jpg
  python recipes/imagenet.py --dataset=folder:PATH --workdir=runs/own \\
      --model=resnet20_cifar --image_size=64 --global_batch_size=8
  # Predict labels: writes runs/own/predict.csv and predict.json
  python recipes/imagenet.py --workdir=runs/own --mode=predict --images=FOLDER

The same command, or --workdir alone, resumes a run that was stopped.
Its workdir holds config.json, metrics.jsonl, summary.json, TensorBoard events,
model.keras and report.html.
"""

import pathlib
import sys

if __package__ in (None, ""):
    # Run as a file: packages are imported from the parent of this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from absl import app  # noqa: E402

from recipes.classification.config import Config  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.training import command_line  # noqa: E402


def run(config):
    """Runs a config and returns its `Result`."""
    # TensorFlow takes seconds to import: --help and flag errors come before.
    from recipes.classification.task import ImageClassification
    from recipes.training import runner

    return runner.run(config, ImageClassification())


def main(argv):
    command_line.main(argv, Config, run)


if __name__ == "__main__":
    recipe_flags.define_flags(__doc__, Config)
    app.run(main)
