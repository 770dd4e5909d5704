"""The normalizations that a config asks for."""

import contextlib

import keras_norm
from recipes.errors import RecipeError


def get_norm(config):
    """The `keras_norm.Norm` of a new network.

    Raises:
        RecipeError: for an unknown name.
    """
    norm = _named("norm", config)
    if config.activation == "auto":
        return norm
    return norm.with_activation(config.activation)


def get_conversion_norm(config):
    """The norm that the model of `--init_model` is converted to, or None.

    Raises:
        RecipeError: for an unknown name.
    """
    return None if config.convert_to is None else _named("convert_to", config)


@contextlib.contextmanager
def report_build_errors(what, norm, where=""):
    """Words what is raised inside, of a network that cannot take a norm.

    Args:
        what: What is built.
        norm: A `keras_norm.Norm`.
        where: For which images, if that matters.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise RecipeError(
            f"{what} cannot be built with --norm={norm.name}{where}: {message}"
        ) from error


def _named(flag, config):
    try:
        return keras_norm.get(getattr(config, flag), **config.norm_kwargs)
    except ValueError as error:
        raise RecipeError(f"--{flag}: {error}") from error
