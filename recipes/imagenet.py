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
from recipes.preemption import Preempted  # noqa: E402

recipe_flags.define(__doc__)


def run(config):
    """Config to result: workers, devices, data, model, action, report."""
    from recipes import bad_images
    from recipes import data
    from recipes import dry_run
    from recipes import environment
    from recipes import loop
    from recipes import report
    from recipes import stored
    from recipes import strategy
    from recipes import workdir
    from recipes import workers

    environment.prepare(config)
    these = workers.find(config)
    with workdir.opened(config, these) as config, workers.watched(these):
        replicas = strategy.make(config)
        broadcast = workers.Broadcast(replicas, these)
        workers.require_same_config(config, broadcast)
        batches = data.make(config)
        trainer = loop.build(stored.resolved(config), batches, replicas)
        if config.dry_run:
            print(dry_run.describe(config, batches, trainer, replicas))
            return None
        act = {"eval": loop.evaluate, "export": loop.export}.get(
            config.mode, loop.train
        )
        with bad_images.named(config):
            result = act(config, batches, trainer, replicas, broadcast)
        if config.mode != "export" and these.is_chief:
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
    except Preempted as stop:
        print(f"SIGTERM: saved after step {stop}; the same command goes on")
        sys.exit(Preempted.EXIT_CODE)


if __name__ == "__main__":
    app.run(main)
