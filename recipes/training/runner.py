"""From flags to a report: the way of every program that trains."""

import signal
import sys

from absl import flags
from absl import logging

from recipes.config import flags as recipe_flags
from recipes.errors import RecipeError
from recipes.training import preemption


def main(kind, run):
    """The `main` of a program, for absl.

    Args:
        kind: The class of its config.
        run: `f(config)` runs it.
    """

    def from_flags(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        config = None
        try:
            if len(argv) > 1:
                raise RecipeError(
                    f"unexpected argument {argv[1]!r}: every setting is a "
                    "flag, see --help."
                )
            config = recipe_flags.to_config(flags.FLAGS, kind)
            with preemption.handled():
                run(config)
        except RecipeError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except preemption.Preempted as stop:
            print(f"{stop}; {_resumption(config)}")
            sys.exit(preemption.exit_code(stop.number))
        except KeyboardInterrupt as stop:
            print(f"\nstopped; {_resumption(config)}")
            is_sigterm = isinstance(stop, preemption.Terminated)
            number = signal.SIGTERM if is_sigterm else signal.SIGINT
            sys.exit(preemption.exit_code(number))

    return from_flags


def _resumption(config):
    from recipes.training import checkpoints

    if config is None or not config.trains:
        return "the same command starts again"
    return checkpoints.resumption(config.folder)


def run(config, task):
    """Config to result: workers, devices, data, model, action, report.

    Args:
        config: The config of the run.
        task: Its `Task`.
    """
    from recipes.data import dataset_summary
    from recipes.data import input_pipeline
    from recipes.run_dir import devices
    from recipes.run_dir import disk
    from recipes.run_dir import environment
    from recipes.run_dir import html_report
    from recipes.run_dir import run_dir
    from recipes.training import build
    from recipes.training import cluster
    from recipes.training import distribution
    from recipes.training import dry_run
    from recipes.training import predict
    from recipes.training import schedules
    from recipes.training import stored

    predict.check(config)
    these = cluster.find(config)
    with (
        disk.explained(config.folder),
        environment.prepared(config),
        run_dir.opened(config, these) as config,
        cluster.watched(these),
    ):
        replicas = distribution.make(config)
        print(f"devices: {devices.describe(replicas)}")
        broadcast = cluster.Broadcast(replicas, these)
        cluster.require_same_config(config, broadcast)
        if config.mode == "predict":
            batches = predict.open_images(
                config, task, replicas.num_replicas_in_sync
            )
        else:
            batches = input_pipeline.make_data(config, task)
        if these.is_chief and config.mode != "predict":
            print(dataset_summary.describe_data(batches))
        trainer = build.build(stored.resolved(config), task, batches, replicas)
        if config.dry_run:
            with batches.bad_images.explain_errors():
                print(dry_run.describe(config, batches, trainer, replicas))
            return None
        act = {
            "eval": build.evaluate,
            "export": build.export,
            "predict": build.predict,
        }.get(config.mode, build.train)
        with batches.bad_images.explain_errors():
            result = act(config, task, batches, trainer, replicas, broadcast)
        if config.mode == "predict":
            return None
        left_out = batches.bad_images.describe()
        if left_out:
            print(left_out)
        if config.mode != "export" and these.is_chief:
            print(html_report.describe(task, result))
            rule = schedules.describe(
                config, batches.num_steps, batches.steps_per_epoch
            )
            path = html_report.write(config, task, batches, result, rule)
            print(f"report: {path}")
        return result
