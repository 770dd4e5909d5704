"""What a user can mend: shown as one line, without a stack trace."""

import difflib


class RecipeError(Exception):
    """A mistake in the flags, the data or the machine, and how to mend it."""


def unknown(kind, name, choices):
    """The error for a name that is not among the choices."""
    choices = sorted(choices)
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lowered, 1, cutoff=0.5)
    hint = f" Did you mean {lowered[close[0]]!r}?" if close else ""
    return RecipeError(
        f"unknown {kind} {name!r}.{hint} There are: {', '.join(choices)}."
    )
