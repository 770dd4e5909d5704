"""From flags to a report: the way of every program that trains."""

import sys

from absl import flags
from absl import logging

from recipes import flags as recipe_flags
from recipes.errors import RecipeError
from recipes.preemption import Preempted


def main(kind):
    """The `main` of a program, for absl.

    Args:
        kind: The class of its config.
    """

    def from_flags(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise RecipeError(
                    f"unexpected argument {argv[1]!r}: every setting is a "
                    "flag, see --help."
                )
            run(recipe_flags.to_config(flags.FLAGS, kind))
        except RecipeError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from the last save")
            sys.exit(130)
        except Preempted as stop:
            print(f"SIGTERM: saved after step {stop}; the same command goes on")
            sys.exit(Preempted.EXIT_CODE)

    return from_flags


def run(config):
    """Config to result: workers, devices, data, model, action, report."""
    from recipes import data
    from recipes import dry_run
    from recipes import environment
    from recipes import inventory
    from recipes import loop
    from recipes import predict
    from recipes import report
    from recipes import stored
    from recipes import strategy
    from recipes import workdir
    from recipes import workers

    predict.check(config)
    these = workers.find(config)
    with (
        environment.prepared(config),
        workdir.opened(config, these) as config,
        workers.watched(these),
    ):
        replicas = strategy.make(config)
        broadcast = workers.Broadcast(replicas, these)
        workers.require_same_config(config, broadcast)
        if config.mode == "predict":
            batches = predict.open_images(config, replicas.num_replicas_in_sync)
        else:
            batches = data.make(config)
        if these.is_chief and config.mode != "predict":
            print(inventory.describe(batches))
        trainer = loop.build(stored.resolved(config), batches, replicas)
        if config.dry_run:
            with batches.bad_images.named():
                print(dry_run.describe(config, batches, trainer, replicas))
            return None
        act = {
            "eval": loop.evaluate,
            "export": loop.export,
            "predict": loop.predict,
        }.get(config.mode, loop.train)
        with batches.bad_images.named():
            result = act(config, batches, trainer, replicas, broadcast)
        if config.mode == "predict":
            return None
        left_out = batches.bad_images.describe()
        if left_out:
            print(left_out)
        if config.mode != "export" and these.is_chief:
            print(report.describe(config, result))
            print(f"report: {report.write(config, batches, result)}")
        return result
