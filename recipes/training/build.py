"""From data and a trainer to a trained, evaluated, recorded model."""

import dataclasses
import json
import math

import keras

import keras_norm
from recipes import atomic_io
from recipes.data import dataset_summary
from recipes.data.input_pipeline import measure_rate
from recipes.errors import RecipeError
from recipes.models import freeze
from recipes.models import model_metadata
from recipes.run_dir import devices
from recipes.run_dir import environment
from recipes.run_dir import run_dir
from recipes.run_dir.metrics_log import Records
from recipes.training import length
from recipes.training import optimizers
from recipes.training import predict as predict_lib
from recipes.training import schedules
from recipes.training import stored
from recipes.training.checkpoints import Checkpoints
from recipes.training.compiled_steps import Steps
from recipes.training.loop import Training
from recipes.training.preemption import Preemption
from recipes.training.state import State


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        records: The rows of the whole run, resumed parts included.
        summary: What summary.json holds.
    """

    records: Records
    summary: dict


def build(config, task, data, strategy):
    """The compiled trainer, its variables on every replica.

    Raises:
        RecipeError: for a model or a norm that cannot be.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        model = task.build_model(config, data)
        freeze.freeze(model, config.freeze, task.head_layers)
        pads = not config.drop_remainder or config.on_bad_image == "skip"
        try:
            trainer = task.make_trainer(model, config, data, pads)
        except ValueError as error:
            raise RecipeError(f"{error}") from error
        rate = schedules.make(config, data.num_steps, data.steps_per_epoch)
        trainer.compile(optimizer=optimizers.make(config, rate, model))
    return trainer


def train(config, task, data, trainer, strategy, broadcast):
    """Goes on from the last save: trains, evaluates, records.

    Returns:
        A `Result`.

    Raises:
        Preempted: if the run was asked to end.
        RecipeError: if a loss is not finite, nothing can be saved, or the run
            was trained for another length with other learning rates.
    """
    kept = run_dir.stored(config.folder, type(config))
    earlier = length.extended(config, data, kept)
    state = State(trainer)
    checkpoints = Checkpoints(config.folder, config.keep)
    save = None
    if broadcast.workers.is_chief:
        save = checkpoints.newest(state.variables)
    facts = _take(save, state, strategy, broadcast)
    step, seconds = facts["step"], facts["seconds"]
    records = Records(config.folder, config.best_metric, step)
    if earlier is not None:
        records.drop(length.is_of_the_end(config, data, earlier))

    def begin():
        run_dir.save(config)
        records.reopen()

    saved_by = {"keras_norm": keras_norm.__version__}

    def write(step, seconds):
        if broadcast.workers.is_chief:
            facts = {"step": step, "seconds": seconds, **saved_by}
            best_step = records.best().get("step")
            checkpoints.save(state.read(), facts, best_step)

    steps = Steps(
        trainer,
        data,
        strategy,
        is_timed=not config.deterministic and config.strategy != "tpu",
        loops=config.steps_per_execution > 1,
    )
    training = Training(
        config,
        task,
        data,
        steps,
        records,
        write,
        broadcast,
        step,
        seconds,
        begin,
    )
    summary = _summary(data, trainer, strategy)
    if step < data.num_steps:
        if step:
            print(f"going on after step {step} of {data.num_steps}")
        rate = measure_rate(data)
        print(f"input alone: {rate:,.0f} images/s")
        summary["input/images_per_second"] = round(rate, 1)
        # Each worker makes its own part of the batches.
        training.input_rate = rate * max(len(broadcast.workers.addresses), 1)
        training.run(Preemption())
        seconds = training.seconds
    else:
        run_dir.save(config)
        print(f"training ended before, at step {step}")
        if config.mode == "train_and_eval" and not records.evaluated(step):
            training.evaluate()
    with atomic_io.file(config.folder / "model.keras") as path:
        with trainer.averaged():
            trainer.model.save(path)
        names = list(data.source.class_names)
        model_metadata.add_metadata(path, {"class_names": names})
    summary.update(
        seconds=round(seconds, 1),
        peak_memory_bytes=environment.peak_memory_bytes(),
        skipped_updates=int(trainer.guard.skipped.numpy()),
        bad_images=_bad_images(data, records, step),
    )
    return Result(records, records.summarize(summary))


def evaluate(config, task, data, trainer, strategy, broadcast):
    """Evaluates the weights that `--checkpoint` names.

    The row goes into the records where the run has none of that step, and into
    eval.json.

    Returns:
        A `Result`.

    Raises:
        RecipeError: if there is no such checkpoint.
    """
    records = Records(config.folder, config.best_metric)
    step = _load(config, trainer, strategy, records, broadcast)
    values = Steps(trainer, data, strategy).evaluate()
    row = {f"eval/{name}": value for name, value in values.items()}
    # JSON has no NaN, such as the AP of large objects where there are none.
    finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
    facts = {"checkpoint": config.checkpoint, "step": step, **finite}
    facts["bad_images"] = data.bad_images.names()
    text = json.dumps(facts, indent=2) + "\n"
    atomic_io.write_text(config.folder / "eval.json", text)
    print(f"{config.checkpoint}: {task.describe_evaluation(values)}")
    if config.checkpoint == "last" and not records.evaluated(step):
        records.add(step, step / data.steps_per_epoch, row)
    summary = _summary(data, trainer, strategy)
    return Result(records, records.summarize(summary))


def export(config, task, data, trainer, strategy, broadcast):
    """Writes the weights that `--checkpoint` names for other programs.

    Raises:
        RecipeError: if there is no such checkpoint, or the format cannot hold
            the network.
    """
    records = Records(config.folder, config.best_metric)
    _load(config, trainer, strategy, records, broadcast)
    if broadcast.workers.is_chief:
        with trainer.averaged():
            print(task.export(config, data, trainer.model))


def predict(config, task, data, trainer, strategy, broadcast):
    """Writes what the weights that `--checkpoint` names say of images.

    Raises:
        RecipeError: if there is no such checkpoint.
    """
    records = Records(config.folder, config.best_metric)
    step = _load(config, trainer, strategy, records, broadcast)
    steps = Steps(trainer, data, strategy, is_timed=False)
    print(
        predict_lib.write(config, task, steps, step, broadcast.workers.is_chief)
    )


def _load(config, trainer, strategy, records, broadcast):
    """Takes the weights that `--checkpoint` names; the step they are of."""
    state, save = State(trainer), None
    if broadcast.workers.is_chief:
        checkpoints = Checkpoints(config.folder, config.keep)
        save = stored.find(config, state, checkpoints, records)
    return _take(save, state, strategy, broadcast)["step"]


def _take(save, state, strategy, broadcast):
    """Gives every worker the chief's save, if any: its `step` and `seconds`."""
    facts = {"step": 0, "seconds": 0.0} if save is None else save.facts
    facts = broadcast.facts(facts)
    if facts["step"]:
        arrays = state.read() if save is None else save.arrays
        arrays = {name: broadcast.array(a) for name, a in arrays.items()}
        with strategy.scope():
            state.write(arrays, facts.get("keras_norm"))
    return facts


def _bad_images(data, records, first_step):
    """Names of the images left out, by earlier parts of the run included."""
    earlier = records.earlier_summary() if first_step else {}
    found = data.bad_images.names()
    return list(dict.fromkeys([*earlier.get("bad_images", ()), *found]))


def _summary(data, trainer, strategy):
    return {
        "parameters": trainer.model.count_params(),
        "num_replicas": strategy.num_replicas_in_sync,
        "devices": devices.describe(strategy),
        "num_train": data.num_train,
        "num_eval": data.num_eval,
        **dataset_summary.class_metadata(data.source),
    }
