"""The errors that a user of this project may see: what is wrong, what came, what to do."""


class MedFormerError(Exception):
    """Root of every expected error; a command prints it as one sentence and exits with 1."""


class ConfigError(MedFormerError):
    """A setting is unknown, of the wrong type or out of range."""


class ShapeError(MedFormerError):
    """A tensor has another rank, size or type than the function was promised."""


class ModelFileError(MedFormerError):
    """A model file cannot be read or written, or is not what was asked for."""


class ExportError(MedFormerError):
    """A model cannot be exported, or what was exported answers otherwise than the model."""
