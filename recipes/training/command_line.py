"""The command line of every training program: from flags to a run."""

import logging as python_logging
import os
import pathlib

from absl import flags
from absl import logging

import keras_norm_cli
from recipes import errors
from recipes.config import flags as recipe_flags
from recipes.run_dir import run_dir
from recipes.training import signals

NVIDIA_DEVICE = pathlib.Path("/dev/nvidiactl")


def main(argv, config_class, run):
    """Runs a program; an error of the user ends it with one line.

    Args:
        argv: List of the program's name and of arguments that are not flags.
        config_class: The config class of the program.
        run: `f(config)` runs a config.
    """
    configure_libraries()
    with errors.exit_on_error():
        recipe_flags.reject_arguments(argv)
        settings = recipe_flags.given_settings(flags.FLAGS, config_class)
        config = run_dir.resolve_config(config_class, settings)
        with signals.exit_on_interrupt(config):
            _import_libraries(config)
            run(config)


def configure_libraries():
    """Sets the backend of Keras and what absl and TensorFlow log."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Without a GPU, TensorFlow logs an error that it found none.
    level = "2" if NVIDIA_DEVICE.exists() else "3"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        # Users of a program need no time, thread and source line.
        plain = python_logging.Formatter("%(levelname)s: %(message)s")
        logging.get_absl_handler().setFormatter(plain)


def _import_libraries(config):
    with signals.exit_during_import(config), keras_norm_cli.quiet_start():
        import tensorflow  # noqa: F401

        from recipes.training import runner  # noqa: F401
