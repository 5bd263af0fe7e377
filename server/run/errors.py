"""Errors of a coordinator."""

from medformer.errors import MedFormerError


class FederationError(MedFormerError):
    """The run cannot start: wrong nodes, other code, no site left."""


class RunInterrupted(MedFormerError):
    """A site or process was lost in the middle of a round; the last checkpoint stands."""


class SuperLinkError(MedFormerError):
    """The SuperLink cannot be started or asked; the text names what to do."""


class UpdateRefused(MedFormerError):
    """An update may not be averaged; the round goes on without it."""


class CheckpointError(MedFormerError):
    """No checkpoint can be read, or none can be written."""
