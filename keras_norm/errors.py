"""Errors that a user can fix, and helpers that word them in one line."""

import difflib


class ConversionError(ValueError):
    """A model, a file or an option cannot be converted.

    Its message is one line: what failed, the value received, and the fix.
    """


def one_line(error):
    """Returns the message of an exception on one line."""
    return " ".join(str(error).split())


def printable(text):
    """Escapes control characters, so that text from a file is safe to print.

    A name in a file may hold escape sequences that move the cursor, hide text
    or write to the clipboard, line breaks that imitate output of the program,
    and characters that reverse the direction of writing.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def nearest_name(name, choices, cutoff=0.6):
    """Returns the choice most similar to a name, ignoring case, or None.

    Args:
        name: A name that is not among the choices.
        choices: Iterable of strings.
        cutoff: Similarity in [0, 1] below which no choice is returned.
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(
        name.lower(), by_lower_case, n=1, cutoff=cutoff
    )
    return by_lower_case[close[0]] if close else None


def did_you_mean(name, choices, cutoff=0.6):
    """Returns `" Did you mean 'x'?"`, or `""` if no choice is similar."""
    nearest = nearest_name(name, choices, cutoff)
    return "" if nearest is None else f" Did you mean {nearest!r}?"
