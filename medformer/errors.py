"""The errors that a user of this project may see: what is wrong, what came, what to do."""


class MedFormerError(Exception):
    """Root of every expected error; a command prints it as one sentence and exits with 1."""


class ConfigError(MedFormerError):
    """A setting is unknown, of the wrong type or out of range."""


class ShapeError(MedFormerError):
    """A tensor has another rank, size or type than the function was promised."""
