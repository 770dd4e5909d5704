"""Errors that a user can fix: one line with the value received and the fix."""


class ConversionError(ValueError):
    """A model, a file or an option that cannot be converted as it is."""


def one_line(error):
    """What an exception says, on one line."""
    return " ".join(str(error).split())


def printable(text):
    """Text from a file, safe to print: control characters are escaped.

    A name in a file may hold escape sequences that move the cursor, hide text
    or write to the clipboard, line breaks that feign lines of the program, and
    characters that reverse the direction of writing.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )
