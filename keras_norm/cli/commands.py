"""Commands of the program keras-norm, whose arguments are in arguments.py."""

import contextlib
import dataclasses
import importlib
import json
import os
import sys
import warnings

import keras
from rich.console import Console
from rich.text import Text

from keras_norm.cli import data as cli_data
from keras_norm.conversion import report_table
from keras_norm.conversion.convert import convert
from keras_norm.conversion.convert import plan_conversion
from keras_norm.conversion.entries import plural
from keras_norm.conversion.inspect_model import inspect_model
from keras_norm.conversion.verify import compare_saved
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.errors import printable
from keras_norm.folding.fold import fold
from keras_norm.folding.fold import plan_folding
from keras_norm.folding.fold import uses_package
from keras_norm.recalibration.pool import pool
from keras_norm.recalibration.recalibrate import find_statistics
from keras_norm.recalibration.recalibrate import recalibrate
from keras_norm.saving import load


def main(options):
    """Runs a command; returns the exit code.

    Args:
        options: The parsed arguments of `keras_norm.cli.arguments`.
    """
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, "reconfigure"):
            # Not every terminal can print every character of a name.
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            for module in options.modules:
                _import(module)
            COMMANDS[options.command](options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConversionError as error:
        _print_message(f"error: {error}")
        return 1
    except Exception as error:
        _print_message(
            f"error: {type(error).__name__}: {one_line(error)[:400]}"
        )
        return 1
    return 0


def _inspect(options):
    model = _load(options, require_built=False)
    report = inspect_model(model)
    if options.json:
        print(json.dumps(_describe(model, report), indent=2))
    else:
        report_table.print_model(model, report, _console())


def _convert(options):
    _check_files(options)
    inputs = cli_data.read_arrays(options.inputs) if options.inputs else None
    open_data = cli_data.find_data(options)
    model = _load(options)
    choices = {
        "include": options.include,
        "exclude": options.exclude,
        "activation": options.activation,
        **dict(options.arg),
    }
    if options.plan:
        report = plan_conversion(model, options.to, **choices)
    else:
        status = f"converting {model.name} to {options.to}"
        data, _ = open_data(model)
        # Distillation has a progress bar of its own.
        with _status(status) if data is None else contextlib.nullcontext():
            converted, report = convert(
                model,
                options.to,
                strict=not options.keep_unreachable,
                verify=options.verify,
                inputs=inputs,
                data=data,
                refit=options.refit,
                epsilon_ratio=options.epsilon_ratio,
                distill_steps=options.distill_steps,
                distill_batch_size=options.distill_batch_size,
                **choices,
            )
        with _status(f"writing {options.out}"):
            load.save_model(converted, options.out, options.overwrite)
    _print_report(report, options)
    if not options.plan:
        _print_written(options.out)


def _fold(options):
    _check_files(options)
    inputs = cli_data.read_arrays(options.inputs) if options.inputs else None
    model = _load(options)
    selection = {"include": options.include, "exclude": options.exclude}
    if options.plan:
        report = plan_folding(model, **selection)
    else:
        with _status(f"folding {model.name}"):
            folded, report = fold(
                model, verify=options.verify, inputs=inputs, **selection
            )
            load.save_model(folded, options.out, options.overwrite)
    _print_report(report, options)
    if not options.plan:
        _print_written(options.out, is_needed=uses_package(folded))


def _recalibrate(options):
    load.check_target(options.out, options.overwrite)
    open_data = cli_data.find_data(options)
    model = _load(options)
    data, batch_size = open_data(model)
    new, report = recalibrate(
        model,
        data,
        method=options.method,
        prior=options.prior,
        include=options.include,
        batch_size=batch_size,
    )
    with _status(f"writing {options.out}"):
        load.save_model(new, options.out, options.overwrite)
    _print_report(report, options)
    _print_written(options.out, is_needed=uses_package(new))


def _pool(options):
    load.check_target(options.out, options.overwrite)
    models = [_load(options, path=path) for path in options.models]
    with _status(f"pooling {len(models)} models"):
        pooled = pool(
            models, options.counts, average_weights=options.average_weights
        )
        load.save_model(pooled, options.out, options.overwrite)
    layers = [item.path for item in find_statistics(pooled)]
    if options.json:
        fields = "models", "counts", "average_weights"
        report = {name: getattr(options, name) for name in fields}
        print(json.dumps({"model": pooled.name, **report, "layers": layers}))
    else:
        _console().print(
            Text(
                f"{printable(pooled.name)}: moving statistics of "
                f"{plural(len(layers), 'layer')} pooled from "
                f"{plural(len(models), 'model')}."
            )
        )
    _print_written(options.out, is_needed=uses_package(pooled))


def _upgrade(options):
    load.check_target(options.out, options.overwrite)
    model, notes = _load_with_notes(options, options.model)
    with _status(f"writing {options.out}"):
        comparison = compare_saved(model) if options.verify else None
        load.save_model(model, options.out, options.overwrite)
    if options.json:
        verified = comparison and dataclasses.asdict(comparison)
        report = {"notes": notes, "renamed": notes.renamed}
        print(json.dumps({**report, "verified": verified}, indent=2))
    elif comparison:
        print(
            f"verified on {comparison.num_samples} random samples: "
            f"{options.out} has the outputs of the model that was read"
        )
    _print_written(options.out, is_needed=uses_package(model))


COMMANDS = {
    "inspect": _inspect,
    "convert": _convert,
    "fold": _fold,
    "recalibrate": _recalibrate,
    "upgrade": _upgrade,
    "pool": _pool,
}


def _check_files(options):
    """Raises an error unless the command can write its file, if it has one."""
    if options.plan == (options.out is not None):
        raise ConversionError(
            "pass either OUT, the file to write, or --plan to write nothing. "
            f"Received: OUT={options.out}, --plan={options.plan}"
        )
    if not options.plan:
        load.check_target(options.out, options.overwrite)


def _print_report(report, options):
    if options.json:
        print(report.to_json())
    else:
        report.print(_console())


def _print_written(path, is_needed=True):
    """Prints the path of a new file, and if it needs this package."""
    advice = (
        f"import keras_norm before keras.saving.load_model({path!r})"
        if is_needed
        else f"keras.saving.load_model({path!r}) loads it"
    )
    _print_message(f"wrote {path}: {advice}")


def _load(options, require_built=True, path=None):
    return _load_with_notes(options, path or options.model, require_built)[0]


def _load_with_notes(options, path, require_built=True):
    with _status(f"loading {path}"):
        model, notes = load.load_model(
            path,
            options.unsafe,
            options.weights,
            options.modules,
            require_built,
            _find_builder(options.builder),
        )
    for note in notes:
        _print_message(note)
    return model, notes


def _find_builder(text):
    """Returns the function that `MODULE:FUNCTION` names, or None."""
    if text is None:
        return None
    module, _, name = text.partition(":")
    function = getattr(_import(module, "--builder"), name, None)
    if not callable(function):
        raise ConversionError(
            "--builder must be MODULE:FUNCTION, such as my_model:build. "
            f"Received: --builder {text}"
        )
    return function


def _describe(model, report):
    return {
        "model": model.name,
        "class": type(model).__name__,
        "keras": keras.__version__,
        "parameters": model.count_params() if model.built else None,
        "notes": report.notes,
        "batch_normalizations": [
            _entry_dict(entry)
            for entry in report.entries
            if entry.is_batch_norm
        ],
        "normalizations": [_entry_dict(entry) for entry in report.entries],
    }


def _entry_dict(entry):
    entry = dataclasses.asdict(entry)
    keys = "path", "layer", "shape", "action", "reason", "activations"
    return {key: entry[key] for key in keys}


def _import(module, flag="--import"):
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConversionError(
            f"{flag} {module} failed: {one_line(error)}. Pass the dotted "
            "name of a module that is installed or in the current folder."
        ) from error
    finally:
        sys.path.remove(os.getcwd())


def _warn(message, *_, **__):
    _print_message(f"warning: {one_line(message)}")


def _print_message(message):
    print(printable(message), file=sys.stderr)


def _console():
    # A pipe or a file does not have a width.
    return Console(width=None if sys.stdout.isatty() else 120)


def _status(message):
    return Console(stderr=True).status(Text(printable(message)))
