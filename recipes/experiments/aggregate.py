"""Runs that differ in nothing but the seed, as one: its name, its spread."""

import dataclasses
import json
import shlex
import statistics

from recipes.classification.config import Config
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import fields_by_resume_rule
from recipes.config.setting import fields_that_affect_result

# Values that say that a setting is not used: a label leaves them out.
_OFF = (None, {}, False, 0, "auto")


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a value is spread over runs.

    Attributes:
        mean: The mean.
        deviation: The sample standard deviation; None for one value.
        low: The smallest value.
        high: The largest value.
        num: The number of values.
    """

    mean: float
    deviation: float | None
    low: float
    high: float
    num: int

    def text(self, digits=2, factor=1):
        """Mean and deviation, such as `91.23 ± 0.41`; the mean of one value.

        Args:
            digits: How many to show after the point.
            factor: What is shown is the value times this.
        """
        mean = f"{self.mean * factor:,.{digits}f}"
        if self.deviation is None:
            return mean
        return f"{mean} ± {self.deviation * factor:,.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: What tells it from the other groups, in flags.
        settings: Dict of the settings that differ between groups.
        runs: List of `Run`.
    """

    label: str
    settings: dict
    runs: list

    def spread(self, value):
        """The `Spread` of a value over the runs that have it, or None.

        Args:
            value: A key, whose newest value is taken, or `f(run)`.
        """
        if isinstance(value, str):
            return spread(run.final(value) for run in self.runs)
        return spread(map(value, self.runs))


def spread(values):
    """The `Spread` of the values that are not None; None without any."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    mean = statistics.fmean(values)
    return Spread(mean, deviation, min(values), max(values), len(values))


def make(runs, apart_from=()):
    """The groups of runs, in the order of their first runs.

    Args:
        runs: List of `Run`.
        apart_from: Names of settings, besides the seed, that do not separate
            groups.
    """
    separating = [
        name
        for name in fields_that_affect_result(Config)
        if name not in ("seed", *apart_from)
    ]
    names = differing(runs, separating)
    if not names and "preset" not in apart_from:
        names = differing(runs, ["preset"])
    members = []
    for run in runs:
        settings = {name: run.config[name] for name in names}
        for others, same in members:
            if others == settings:
                same.append(run)
                break
        else:
            members.append((settings, [run]))
    labels = _labels([settings for settings, _ in members], runs)
    return [
        Group(label, settings, same)
        for label, (settings, same) in zip(labels, members, strict=True)
    ]


def differing(runs, names):
    """Those of the settings that are not the same in all of the runs."""
    return [
        name
        for name in names
        if any(run.config[name] != runs[0].config[name] for run in runs)
    ]


def _labels(groups, runs):
    """A label for each dict of settings, no two the same."""
    if len(groups) == 1:
        return [_network(runs[0].config)]
    labels = [_label(settings) for settings in groups]
    return [
        label
        if labels.count(label) == 1
        else _label(settings, _telling(label, labels, groups))
        for label, settings in zip(labels, groups, strict=True)
    ]


def _telling(label, labels, groups):
    """The settings that differ between the groups of one label."""
    same = [groups[i] for i, other in enumerate(labels) if other == label]
    return [
        name
        for name in same[0]
        if any(settings[name] != same[0][name] for settings in same)
    ]


def _label(settings, telling=()):
    """Settings as flags: those that are used, and those that tell."""
    changeable = fields_by_resume_rule(Config, MAY_CHANGE, PER_COMMAND)
    shown = [name for name in settings if name not in changeable]
    used = [
        name
        for name in settings
        if name in telling or (name in shown and settings[name] not in _OFF)
    ]
    names = used or shown or list(settings)
    return " ".join(flag(name, settings[name]) for name in names)


def _network(config):
    names = ("model", "norm")
    if config["init_model"] is not None:
        names = ("init_model", "convert_to")
    return " ".join(
        flag(name, config[name]) for name in names if config[name] is not None
    )


def flag(name, value):
    """A setting as it is typed in a shell."""
    name, equals, value = argument(name, value).partition("=")
    return f"{name}{equals}{shlex.quote(value) if equals else value}"


def argument(name, value):
    """A setting as a program gets it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if value is None:
        value = "none"
    elif isinstance(value, dict):
        value = json.dumps(value)
    elif isinstance(value, float):
        value = f"{value!r}".removesuffix(".0")
    return f"--{name}={value}"
