"""Trains an image classifier with any normalization, on one device or several.

Examples:

  # ResNet-20 with FRN on embedded digits, two replicas on one CPU
  python recipes/imagenet.py --preset=digits

  # The FRN paper's ResNetV2-50 on ImageNet, every GPU of this machine
  python recipes/imagenet.py --preset=frn_resnet50v2 --data_dir=/data

  # The same network and length with batch normalization calibrated per sample
  python recipes/imagenet.py --preset=frn_resnet50v2 --norm=rbn

  # Images of your own: PATH/train/<label>/*.jpg, PATH/validation/<label>/*.jpg
  python recipes/imagenet.py --dataset=folder:PATH --workdir=runs/own \\
      --model=resnet20_cifar --image_size=64 --global_batch_size=8
  # Labels of further ones, in runs/own/predict.csv and predict.json
  python recipes/imagenet.py --workdir=runs/own --mode=predict --images=FOLDER

A run that was stopped goes on with the same command, or with --workdir alone.
Its workdir holds config.json, metrics.jsonl, summary.json, TensorBoard events,
model.keras and report.html.
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
from recipes.config.base import Config  # noqa: E402
from recipes.training import runner  # noqa: E402

recipe_flags.define(__doc__, Config)


def run(config):
    """Runs a config and returns its `Result`."""
    # TensorFlow takes seconds to import, which --help does not need.
    from recipes.classification.task import ImageClassification

    return runner.run(config, ImageClassification())


if __name__ == "__main__":
    app.run(runner.main(Config, run))
