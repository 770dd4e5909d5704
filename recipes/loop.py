"""From data and a trainer to a trained, evaluated, recorded model."""

import dataclasses
import time

import keras

import keras_norm
from recipes import callbacks
from recipes import init_model
from recipes import models
from recipes import schedules
from recipes.checkpoint import Checkpoints
from recipes.data import measure_rate
from recipes.errors import RecipeError
from recipes.records import Records
from recipes.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        records: The rows of the whole run, resumed parts included.
        summary: What summary.json holds.
    """

    records: Records
    summary: dict


def build(config, data, strategy):
    """The compiled trainer, its variables on every replica.

    Raises:
        RecipeError: for a model or a norm that cannot be.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with strategy.scope():
        model = _network(config, data.image_shape, data.num_classes)
        trainer = Trainer(
            model,
            config.weight_decay,
            config.norm_weight_decay,
            config.label_smoothing,
        )
        rate = schedules.make(config, data.num_steps, data.steps_per_epoch)
        trainer.compile(
            optimizer=keras.optimizers.SGD(rate, momentum=config.momentum),
            jit_compile=False,
        )
    return trainer


def _network(config, image_shape, num_classes):
    if config.init_model is None:
        norm = _norm("norm", config)
        return models.make(config.model, norm, image_shape, num_classes)
    model, notes = init_model.load(
        config.init_model,
        None if config.convert_to is None else _norm("convert_to", config),
        image_shape,
        num_classes,
        config.precision,
    )
    print("\n".join(notes))
    return model


def _norm(flag, config):
    try:
        return keras_norm.get(getattr(config, flag), **config.norm_kwargs)
    except ValueError as error:
        raise RecipeError(f"--{flag}: {error}") from error


def run(config, data, trainer, strategy):
    """Goes on from the last save: trains, evaluates, records, as asked.

    Returns:
        A `Result`.

    Raises:
        RecipeError: if there is nothing to evaluate, a loss is not finite, or
            nothing can be saved.
    """
    checkpoints = Checkpoints(config.folder)
    with strategy.scope():
        epoch, seconds = checkpoints.restore(trainer)
    if config.mode == "eval" and epoch == 0:
        raise RecipeError(
            f"--mode=eval found no save in {config.folder}: train first, or "
            "give the --workdir of a run."
        )
    step = min(epoch * data.steps_per_epoch, data.num_steps)
    records = Records(config.folder, step)
    facts = {
        "parameters": trainer.model.count_params(),
        "num_replicas": strategy.num_replicas_in_sync,
        "num_train": data.num_train,
        "num_eval": data.num_eval,
        "seconds": round(seconds, 1),
    }
    if config.mode != "eval" and epoch < data.num_epochs:
        if epoch:
            print(f"going on after epoch {epoch}, step {step}")
        facts["input/images_per_second"] = round(measure_rate(data), 1)
        print(f"input alone: {facts['input/images_per_second']:,.0f} images/s")
        saver = callbacks.Saver(checkpoints, seconds)
        start = time.perf_counter()
        _fit(config, data, trainer, records, saver, epoch)
        facts["seconds"] = round(seconds + time.perf_counter() - start, 1)
        trainer.model.save(config.folder / "model.keras")
        step = data.num_steps
    elif config.mode != "eval":
        print(f"training ended before, at step {step}")
    evaluated_steps, _ = records.series("eval/loss")
    if config.mode == "eval" or (
        config.mode == "train_and_eval" and step not in evaluated_steps
    ):
        _evaluate(data, trainer, records, step)
    return Result(records, records.summarize(facts))


def _fit(config, data, trainer, records, saver, first_epoch):
    evaluates = config.mode == "train_and_eval"
    first_step = first_epoch * data.steps_per_epoch
    recorder = callbacks.Recorder(
        records, data, first_step, config.log_every_steps
    )
    bar = callbacks.Progress(data, recorder)
    every = config.eval_every_epochs
    evaluated = {*range(every, data.num_epochs, every), data.num_epochs}
    try:
        trainer.fit(
            data.train(first_epoch),
            initial_epoch=first_epoch,
            epochs=data.num_epochs,
            steps_per_epoch=data.steps_per_epoch,
            validation_data=data.evaluation if evaluates else None,
            validation_freq=sorted(evaluated),
            callbacks=[
                recorder,
                bar,
                callbacks.StopAtLastStep(recorder, data.num_steps),
                saver,
            ],
            shuffle=False,
            verbose=0,
        )
    finally:
        bar.stop()


def _evaluate(data, trainer, records, step):
    values = trainer.evaluate(data.evaluation, verbose=0, return_dict=True)
    values = {f"eval/{name}": value for name, value in values.items()}
    values["eval/examples"] = int(values["eval/examples"])
    records.add(step, step / data.steps_per_epoch, values)
