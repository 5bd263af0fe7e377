"""The errors that a user of this project may see: what is wrong, what came, what to do."""


def one_line(text: str, most: int = 2_000) -> str:
    """A text that may hold pieces of a file as one line: no control characters reach a terminal or
    a log, and no piece is longer than a reader wants."""
    flat = " ".join(text.split())
    if len(flat) > most:
        flat = f"{flat[: most * 3 // 4]} ... {flat[-most // 8 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)[:most]


class MedFormerError(Exception):
    """Root of every expected error; a command prints it as one sentence and exits with 1."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(MedFormerError):
    """A setting is unknown, of the wrong type or out of range."""


class ShapeError(MedFormerError):
    """A tensor has another rank, size or type than the function was promised."""


class ModelFileError(MedFormerError):
    """A model file cannot be read or written, or is not what was asked for."""


class ExportError(MedFormerError):
    """A model cannot be exported, or what was exported answers otherwise than the model."""
