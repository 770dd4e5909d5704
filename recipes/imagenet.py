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

import os
import pathlib
import sys

if __package__ in (None, ""):
    # Run as a file: packages are imported from the parent of this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
# Without a GPU, TensorFlow logs an error that it found none.
quiet = "2" if pathlib.Path("/dev/nvidiactl").exists() else "3"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", quiet)
os.environ["KERAS_BACKEND"] = "tensorflow"

from absl import app  # noqa: E402
from absl import flags  # noqa: E402
from absl import logging  # noqa: E402

from recipes import errors  # noqa: E402
from recipes.classification.config import Config  # noqa: E402
from recipes.config import flags as recipe_flags  # noqa: E402
from recipes.run_dir import run_dir  # noqa: E402
from recipes.training import signals  # noqa: E402


def run(config):
    """Runs a config and returns its `Result`."""
    # TensorFlow takes seconds to import: --help and flag errors come before.
    from recipes.classification.task import ImageClassification
    from recipes.training import runner

    return runner.run(config, ImageClassification())


def main(argv):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    with errors.exit_on_error():
        recipe_flags.reject_arguments(argv)
        settings = recipe_flags.given_settings(flags.FLAGS, Config)
        config = run_dir.resolve_config(Config, settings)
        with signals.exit_on_interrupt(config):
            run(config)


if __name__ == "__main__":
    recipe_flags.define_flags(__doc__, Config)
    app.run(main)
