"""What a coordinator may fail with."""

from medformer.errors import MedFormerError


class FederationError(MedFormerError):
    """The run cannot start: wrong nodes, other code, no site left."""


class RunInterrupted(MedFormerError):
    """A site or process was lost in the middle of a round; the last checkpoint stands."""


class SuperLinkError(MedFormerError):
    """The SuperLink cannot be started or asked; says what to do."""


class UpdateRefused(MedFormerError):
    """An update that may not be averaged; its sender's part of the round is left out."""


class CheckpointError(MedFormerError):
    """No checkpoint can be read, or none can be written."""
