"""Divides layers into stages, each of which needs one pass over the data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stage:
    """Layers whose moments are found in the same pass.

    Attributes:
        calls: Dict from the ids of layers to lists of their `Step`s.
        recurrent: Set of the ids of the layers whose input depends on their own
            statistics: a shared layer behind itself.
    """

    calls: dict
    recurrent: set


def make_stages(program, layers):
    """Divides layers by what their inputs depend on.

    A layer is in the stage after the last stage of the layers that its input
    depends on, through any of its calls.

    Args:
        program: The `Program`.
        layers: List of the layers.

    Returns:
        `(stages, upstream)`: a list of `Stage`, and a dict from keys to the
        sets of the ids of all layers that the value depends on.
    """
    calls = {id(layer): [] for layer in layers}
    direct = {id(layer): set() for layer in layers}
    upstream = {key: frozenset() for key in program.inputs}
    upstream.update((key, frozenset()) for key in program.constants)
    for step in program.steps:
        found = frozenset().union(*(upstream[key] for key in step.reads))
        name = id(step.operation)
        if name in calls:
            calls[name].append(step)
            direct[name] |= found
            found |= {name}
        upstream.update((key, found) for key in step.writes)
    depends = _transitive(direct)
    levels = {}
    for name in sorted(depends, key=lambda name: len(depends[name])):
        earlier = [d for d in depends[name] if name not in depends[d]]
        levels[name] = 1 + max((levels[d] for d in earlier), default=-1)
    stages = []
    for level in range(1 + max(levels.values(), default=-1)):
        names = [name for name in calls if levels[name] == level]
        recurrent = {name for name in names if name in depends[name]}
        stages.append(Stage({name: calls[name] for name in names}, recurrent))
    return stages, upstream


def steps_to(stages, program):
    """Returns the steps that compute the inputs of all layers, in order."""
    wanted = {
        key
        for stage in stages
        for calls in stage.calls.values()
        for call in calls
        for key in call.reads
    }
    return program.steps_between({*program.inputs, *program.constants}, wanted)


def _transitive(direct):
    """Returns all that each name depends on, directly or not."""
    depends = {name: set(names) for name, names in direct.items()}
    changed = True
    while changed:
        changed = False
        for names in depends.values():
            more = set().union(*(depends[name] for name in names)) - names
            names |= more
            changed |= bool(more)
    return depends
