"""Runs a config: devices, data, model, then the action of `--mode`, a report.

`run` is called by the entry points. `train` is the path on which a run resumes:
read the newest checkpoint, restore the weights, enter the training loop.
"""

import dataclasses
import json
import math

import keras

import keras_norm
from recipes import atomic_io
from recipes.data import dataset_summary
from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.errors import explain_disk_errors
from recipes.models import freeze
from recipes.models import model_metadata
from recipes.run_dir import environment
from recipes.run_dir import html_report
from recipes.run_dir import run_dir
from recipes.run_dir.metrics_log import MetricsLog
from recipes.training import calibration
from recipes.training import checkpoints
from recipes.training import distribution
from recipes.training import dry_run
from recipes.training import learning_rate as learning_rate_lib
from recipes.training import multi_worker
from recipes.training import optimizers
from recipes.training import predict as predict_lib
from recipes.training import recalibration
from recipes.training import signals
from recipes.training.checkpoints import CheckpointManager
from recipes.training.checkpoints import TrainingState
from recipes.training.compiled_steps import CompiledSteps
from recipes.training.loop import TrainingLoop
from recipes.training.periodic_actions import drop_final_entries
from recipes.training.periodic_actions import read_earlier_length


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        metrics_log: The `MetricsLog` of the whole run, including entries from
            before it was resumed.
        summary: Dict with the content of summary.json.
    """

    metrics_log: MetricsLog
    summary: dict


@dataclasses.dataclass(frozen=True)
class _Session:
    """Everything that the action of `--mode` works on."""

    config: object
    task: object
    data: object
    trainer: object
    strategy: object
    broadcast: multi_worker.ChiefBroadcast

    @property
    def is_chief(self):
        return self.broadcast.workers.is_chief

    def metrics_log(self, last_step=None):
        config = self.config
        return MetricsLog(config.folder, config.best_metric, last_step)


def run(config, task):
    """Runs a config.

    Args:
        config: The config of the run.
        task: Its `Task`.

    Returns:
        A `Result`; None for a dry run and `--mode=predict`.

    Raises:
        RecipeError: if the user must fix something.
        Preempted: if a signal arrived and a checkpoint was saved.
    """
    if config.mode != "predict":
        config.check_names()
    predict_lib.check_images(config)
    workers = multi_worker.read_workers(config.strategy)
    given = config
    with (
        explain_disk_errors(
            given.folder, lambda: signals.describe_resumption(given)
        ),
        environment.configure_process(config.deterministic, config.seed),
        run_dir.open_run_dir(config, workers.is_chief) as config,
        multi_worker.explain_lost_workers(workers),
    ):
        if len(workers.addresses) > 1:
            # TensorFlow waits for the others without a message.
            print(workers.describe(), flush=True)
        strategy = distribution.make_strategy(config)
        print(f"devices: {distribution.describe_devices(strategy)}")
        broadcast = multi_worker.ChiefBroadcast(strategy, workers)
        multi_worker.require_same_config(config, broadcast)
        data = _open_data(config, task, strategy, workers.is_chief)
        trainer = build_trainer(
            checkpoints.config_for_checkpoint(config), task, data, strategy
        )
        session = _Session(config, task, data, trainer, strategy, broadcast)
        with data.bad_images.explain_errors():
            if config.dry_run:
                print(dry_run.describe(config, data, trainer, strategy))
                return None
            result = _ACTIONS[config.mode](session)
        if config.mode != "predict":
            _report(session, result)
        return result


def _open_data(config, task, strategy, is_chief):
    if config.mode == "predict":
        replicas = strategy.num_replicas_in_sync
        return predict_lib.open_images(config, task, replicas)
    data = input_pipeline.make_data(config, task)
    if is_chief:
        print(dataset_summary.describe_data(data))
    return data


def build_trainer(config, task, data, strategy):
    """Returns the compiled trainer, with its variables on every replica.

    Raises:
        RecipeError: if the model or the norm cannot be built.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        model = task.build_model(config, data)
        recalibration.check_model(config, model)
        freeze.freeze(model, config.freeze, task.head_layers)
        pads = not config.drop_remainder or config.on_bad_image == "skip"
        try:
            trainer = task.make_trainer(model, config, data, pads)
        except ValueError as error:
            raise RecipeError(f"{error}") from error
        learning_rate = learning_rate_lib.make_schedule(
            config, data.num_steps, data.steps_per_epoch
        )
        trainer.compile(
            optimizer=optimizers.make_optimizer(config, learning_rate, model)
        )
    return trainer


def train(session):
    """Resumes from the newest checkpoint, if any, and trains to the end.

    Returns:
        A `Result`.

    Raises:
        Preempted: if a signal arrived and a checkpoint was saved.
        RecipeError: if a loss is not finite, a checkpoint cannot be written, or
            an earlier run had another length and other learning rates.
    """
    config, data, trainer = session.config, session.data, session.trainer
    stored = run_dir.stored_settings(config.folder, type(config))
    earlier_length = read_earlier_length(config, data, stored)
    state = TrainingState(trainer)
    manager = CheckpointManager(config.folder, config.keep)
    checkpoint = None
    if session.is_chief:
        checkpoint = manager.read_newest(state.variables)
    metadata = _restore(checkpoint, state, session)
    step, seconds = metadata["step"], metadata["seconds"]
    if not step and config.calibration_images:
        calibration.calibrate(session)
    metrics_log = session.metrics_log(step)
    if earlier_length is not None:
        drop_final_entries(metrics_log, config, data, earlier_length)

    def on_start():
        run_dir.write_config(config)
        metrics_log.reopen()

    def on_end():
        if config.recalibrate:
            recalibration.recalibrate(config, data, trainer, session.strategy)

    def save(step, seconds):
        if session.is_chief:
            metadata = {
                "step": step,
                "seconds": seconds,
                "keras_norm": keras_norm.__version__,
            }
            best_step = metrics_log.best().get("step")
            manager.save(state.read(), metadata, best_step)

    steps = CompiledSteps(
        trainer,
        data,
        session.strategy,
        is_timed=not config.deterministic and config.strategy != "tpu",
        always_loops=config.steps_per_execution > 1,
    )
    loop = TrainingLoop(
        config,
        session.task,
        data,
        steps,
        metrics_log,
        save,
        session.broadcast,
        step,
        seconds,
        on_start,
        on_end,
    )
    summary = _summarize_setup(session)
    if step < data.num_steps:
        summary["input/images_per_second"] = _run_loop(loop, session)
        seconds = loop.seconds
    else:
        run_dir.write_config(config)
        print(f"training ended before, at step {step}")
        is_evaluated = metrics_log.has_evaluation(step)
        if config.mode == "train_and_eval" and not is_evaluated:
            loop.evaluate()
    _save_model(config.folder / "model.keras", session)
    summary.update(
        seconds=round(seconds, 1),
        peak_memory_bytes=environment.peak_memory_bytes(),
        skipped_updates=int(trainer.guard.skipped.numpy()),
        bad_images=_bad_images(data, metrics_log, step),
    )
    return Result(metrics_log, metrics_log.summarize(summary))


def _run_loop(loop, session):
    """Runs the training loop; returns the images per second of the input."""
    if loop.step:
        print(f"resuming after step {loop.step} of {session.data.num_steps}")
    rate = input_pipeline.measure_rate(session.data)
    print(f"input alone: {rate:,.0f} images/s")
    # Each worker makes its own shard of the batches.
    num_workers = max(len(session.broadcast.workers.addresses), 1)
    loop.input_rate = rate * num_workers
    loop.run(signals.Preemption())
    return round(rate, 1)


def _save_model(path, session):
    with atomic_io.atomic_file(path) as partial:
        with session.trainer.averaged():
            session.trainer.model.save(partial)
        names = list(session.data.source.class_names)
        model_metadata.add_metadata(partial, {"class_names": names})


def evaluate(session):
    """Evaluates the checkpoint that `--checkpoint` selects.

    The metrics are written to eval.json, and to the metrics log if the step has
    not been evaluated before.

    Returns:
        A `Result`.

    Raises:
        RecipeError: if the checkpoint does not exist.
    """
    config, data = session.config, session.data
    metrics_log = session.metrics_log()
    step = _restore_selected(session, metrics_log)
    steps = CompiledSteps(session.trainer, data, session.strategy)
    metrics = steps.evaluate()
    entry = {f"eval/{name}": value for name, value in metrics.items()}
    # JSON has no NaN, such as the AP of large objects if there are none.
    finite = {k: v if math.isfinite(v) else None for k, v in entry.items()}
    content = {"checkpoint": config.checkpoint, "step": step, **finite}
    content["bad_images"] = data.bad_images.names()
    text = json.dumps(content, indent=2) + "\n"
    atomic_io.write_text(config.folder / "eval.json", text)
    print(f"{config.checkpoint}: {session.task.describe_evaluation(metrics)}")
    if config.checkpoint == "last" and not metrics_log.has_evaluation(step):
        metrics_log.add(step, step / data.steps_per_epoch, entry)
    summary = _summarize_setup(session)
    return Result(metrics_log, metrics_log.summarize(summary))


def export(session):
    """Exports the checkpoint that `--checkpoint` selects.

    Raises:
        RecipeError: if the checkpoint does not exist, or the format does not
            support the network.
    """
    _restore_selected(session, session.metrics_log())
    if session.is_chief:
        trainer = session.trainer
        with trainer.averaged():
            print(
                session.task.export(session.config, session.data, trainer.model)
            )


def predict(session):
    """Predicts images with the checkpoint that `--checkpoint` selects.

    Raises:
        RecipeError: if the checkpoint does not exist.
    """
    step = _restore_selected(session, session.metrics_log())
    steps = CompiledSteps(
        session.trainer, session.data, session.strategy, is_timed=False
    )
    print(
        predict_lib.write_predictions(
            session.config, session.task, steps, step, session.is_chief
        )
    )


_ACTIONS = {
    "train": train,
    "train_and_eval": train,
    "eval": evaluate,
    "export": export,
    "predict": predict,
}


def _restore_selected(session, metrics_log):
    """Restores the checkpoint of `--checkpoint` and returns its step."""
    config = session.config
    state, checkpoint = TrainingState(session.trainer), None
    if session.is_chief:
        manager = CheckpointManager(config.folder, config.keep)
        checkpoint = checkpoints.select_checkpoint(
            config, state, manager, metrics_log
        )
    return _restore(checkpoint, state, session)["step"]


def _restore(checkpoint, state, session):
    """Restores the chief's checkpoint on all workers; returns its metadata."""
    broadcast, metadata = session.broadcast, {"step": 0, "seconds": 0.0}
    if checkpoint is not None:
        metadata = checkpoint.metadata
    metadata = broadcast.json(metadata)
    if metadata["step"]:
        arrays = state.read() if checkpoint is None else checkpoint.arrays
        arrays = {name: broadcast.array(a) for name, a in arrays.items()}
        with session.strategy.scope():
            state.write(arrays, metadata.get("keras_norm"))
    return metadata


def _bad_images(data, metrics_log, first_step):
    """Returns the names of images left out, also before the run was resumed."""
    earlier = metrics_log.earlier_summary() if first_step else {}
    names = [*earlier.get("bad_images", ()), *data.bad_images.names()]
    return list(dict.fromkeys(names))


def _summarize_setup(session):
    data, strategy = session.data, session.strategy
    return {
        "parameters": session.trainer.model.count_params(),
        "num_replicas": strategy.num_replicas_in_sync,
        "devices": distribution.describe_devices(strategy),
        "num_train": data.num_train,
        "num_eval": data.num_eval,
        **dataset_summary.class_metadata(data.source),
    }


def _report(session, result):
    config, data = session.config, session.data
    left_out = data.bad_images.describe()
    if left_out:
        print(left_out)
    if config.mode == "export" or not session.is_chief:
        return
    print(html_report.describe_result(session.task, result))
    schedule = learning_rate_lib.describe_schedule(
        config, data.num_steps, data.steps_per_epoch
    )
    path = html_report.write_report(
        config, session.task, data, result, schedule
    )
    print(f"report: {path}")
