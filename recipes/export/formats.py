"""Registry of export formats.

To add a format, write a module like `saved_model` and add it to `FORMATS`. It
becomes a choice of `--export_format`, and the tests of exported models run for
it. Formats import TensorFlow inside
their functions, so that `--help` lists them without loading it.
"""

import contextlib
import dataclasses
import importlib.util
import logging
from collections.abc import Callable

from recipes.config.setting import PER_COMMAND
from recipes.config.setting import setting
from recipes.errors import RecipeError
from recipes.export import litert
from recipes.export import onnx
from recipes.export import saved_model


@dataclasses.dataclass(frozen=True)
class Format:
    """Functions that write a network and load it back.

    Every format names the input `images`, and the outputs as the network does.

    Attributes:
        file: File name in the export folder, or "" for the folder itself.
        packages: Maps each required module to the package to install.
        write: `f(network, path)`. The network maps a dict with `images` to a
            dict of outputs.
        load: `f(path)` returns a function from a batch of images to a dict of
            outputs.
        supports_nms: False if the format has no non-maximum suppression, so
            that detectors cannot be exported.
    """

    file: str
    packages: dict[str, str]
    write: Callable
    load: Callable
    supports_nms: bool = True


def _make_format(module):
    return Format(
        module.FILE,
        module.PACKAGES,
        module.write,
        module.load,
        module.SUPPORTS_NMS,
    )


FORMATS = {
    "saved_model": _make_format(saved_model),
    "litert": _make_format(litert),
    "onnx": _make_format(onnx),
}


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Export format by name"""

    export_format: str = setting(
        "saved_model",
        "Format of the model that --mode=export writes.",
        choices=tuple(FORMATS),
        on_resume=PER_COMMAND,
        affects_result=False,
    )


def get_format(name):
    """Returns a format after checking that its packages are installed.

    Raises:
        RecipeError: If a package is missing.
    """
    chosen = FORMATS[name]
    missing = [
        package
        for module, package in chosen.packages.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise RecipeError(
            f"--export_format={name} needs {', '.join(missing)}. Install "
            f"with: pip install {' '.join(missing)}"
        )
    return chosen


@contextlib.contextmanager
def without_converter_warnings():
    """Silences converters' messages about deprecation and folding."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
