"""The training programs that sweeps start, with the metrics of their tasks."""

import dataclasses
import pathlib

from recipes.classification.config import Config
from recipes.detection.config import DetectionConfig

RECIPES = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of a run, as tables show it.

    Attributes:
        key: Its name in results.json; `eval/<key>` in metrics.jsonl for the
            metrics of an evaluation.
        heading: Title of its column, with the unit.
        digits: Number of decimals.
        factor: Tables show the number times this factor.
    """

    key: str
    heading: str
    digits: int = 2
    factor: float = 100


TRAINING = (
    Metric("training_loss", "training loss", 4, 1),
    Metric("seconds_per_step", "step, ms", 1, 1e3),
    Metric("peak_memory_bytes", "memory, MiB", 0, 2**-20),
    Metric("parameters", "parameters", 0, 1),
    Metric("seconds", "training, min", 1, 1 / 60),
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A training program.

    Attributes:
        name: Its name, `recipes/<name>.py`.
        script: Path of the file.
        config: Its config class.
        metrics: Metrics of an evaluation. Sweeps are judged by the first one,
            of which higher values are better.
        shows_error: Whether curves show 100% minus the first metric.
    """

    name: str
    script: pathlib.Path
    config: type
    metrics: tuple
    shows_error: bool = False

    @property
    def score(self):
        return self.metrics[0]

    @property
    def columns(self):
        """The metrics of a table of runs."""
        best = Metric("best", self.score.heading.replace("test", "best"))
        return (self.score, best, *self.metrics[1:], *TRAINING)


PROGRAMS = {
    "imagenet": Program(
        "imagenet",
        RECIPES / "imagenet.py",
        Config,
        (
            Metric("accuracy", "test top-1, %"),
            Metric("loss", "test loss", 4, 1),
        ),
        shows_error=True,
    ),
    "coco": Program(
        "coco",
        RECIPES / "coco.py",
        DetectionConfig,
        (
            Metric("AP", "test AP, %"),
            Metric("AP50", "test AP50, %"),
            Metric("AP75", "test AP75, %"),
            Metric("training_AP", "training AP, %"),
            Metric("training_AP50", "training AP50, %"),
        ),
    ),
}
CONFIG_CLASSES = tuple(program.config for program in PROGRAMS.values())
