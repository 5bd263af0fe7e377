"""Errors in a site's data: in a source as a whole (`DataError`), or in one record (`Unusable`)."""

from medformer.errors import MedFormerError


class DataError(MedFormerError):
    """A data file is missing, corrupt or not what the site declares."""


class Unusable(Exception):
    """One record cannot be used; the text gives the reason, for the site only.

    A source catches it and marks the record invalid. It never stops a round, because a server could
    see which rounds fail.
    """
