"""Trains an image classifier with any normalization, on one device or several.

Examples:

  # ResNet-20 with FRN on embedded digits, two replicas on one CPU
  python recipes/imagenet.py --preset=digits

  # The FRN paper's ResNetV2-50 on ImageNet, every GPU of this machine
  python recipes/imagenet.py --preset=frn_resnet50v2 --data_dir=/data

  # The same network and length with batch normalization calibrated per sample
  python recipes/imagenet.py --preset=frn_resnet50v2 --norm=rbn

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
from absl import flags  # noqa: E402
from absl import logging  # noqa: E402

from recipes import flags as recipe_flags  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402

recipe_flags.define()
flags.adopt_module_key_flags(recipe_flags)


def run(config):
    """Config to result: devices, data, model, loop, report."""
    from recipes import bad_images
    from recipes import data
    from recipes import loop
    from recipes import report
    from recipes import strategy
    from recipes import workdir

    workdir.check(config)
    replicas = strategy.make(config)
    batches = data.make(config)
    trainer = loop.build(config, batches, replicas)
    workdir.save(config)
    with bad_images.named(config):
        result = loop.run(config, batches, trainer, replicas)
    print(report.describe(result))
    print(f"report: {report.write(config, result)}")
    return result


def main(argv):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise RecipeError(
                f"unexpected argument {argv[1]!r}: every setting is a flag, "
                "see --help."
            )
        run(recipe_flags.to_config(flags.FLAGS))
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last save")
        sys.exit(130)


if __name__ == "__main__":
    app.run(main)
