"""What a user can mend: one line that says what came and how to mend it."""


class ConversionError(ValueError):
    """A model, a file or an option that cannot be converted as it is."""


def one_line(error):
    """What an exception says, on one line."""
    return " ".join(str(error).split())
