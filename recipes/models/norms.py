"""Normalizations of a config."""

import contextlib

import keras_norm
from recipes.errors import RecipeError
from recipes.errors import one_line


def get_norm(config):
    """Returns the `keras_norm.Norm` of a new network.

    Raises:
        RecipeError: If the name or an argument is unknown.
    """
    norm = _get("norm", config)
    if config.activation == "auto":
        return norm
    return norm.with_activation(config.activation)


def get_conversion_norm(config):
    """Returns the norm to which `--init_model` is converted, or None.

    Raises:
        RecipeError: If the name or an argument is unknown.
    """
    if config.convert_to is None:
        return None
    norm = _get("convert_to", config)
    if config.epsilon_ratio:
        norm = keras_norm.get(norm, learned_epsilon="channel")
    return norm


@contextlib.contextmanager
def report_build_errors(what, norm, where=""):
    """Turns the errors of building a network into a `RecipeError`.

    Args:
        what: Name of the network.
        norm: A `keras_norm.Norm`.
        where: Text about the images, if that matters.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = one_line(error)
        raise RecipeError(
            f"{what} cannot be built with --norm={norm.name}{where}: {message}"
        ) from error


def _get(flag, config):
    try:
        return keras_norm.get(getattr(config, flag), **config.norm_kwargs)
    except ValueError as error:
        raise RecipeError(f"--{flag}: {error}") from error
