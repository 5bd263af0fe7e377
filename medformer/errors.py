"""The errors that a user can see: each says what is wrong, what came and what to do."""


def printable(text: str) -> str:
    """Escape control characters, so that a file's name or a message cannot steer a terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str, max_length: int = 2_000) -> str:
    """Turn a text that can hold pieces of a file into one short line for a terminal or a log.

    Args:
        text: Any text.
        max_length: Characters; the middle of a longer text is left out.
    """
    flat = " ".join(text.split())
    if len(flat) > max_length:
        flat = f"{flat[: max_length * 3 // 4]} ... {flat[-max_length // 8 :]}"
    return printable(flat)[:max_length]


class MedFormerError(Exception):
    """The root of all expected errors; a command prints it as one sentence and exits with 1."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(MedFormerError):
    """A setting is unknown, of the wrong type or out of range."""


class ShapeError(MedFormerError):
    """A tensor does not have the rank, size or type that a function needs."""


class ModelFileError(MedFormerError):
    """A model file cannot be read or written, or holds another model than was asked for."""


class ExportError(MedFormerError):
    """A model cannot be exported, or the exported program gives other answers than the model."""
