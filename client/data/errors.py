"""What can be wrong with a site's data: with all of it, or with one record."""

from medformer.errors import MedFormerError


class DataError(MedFormerError):
    """A data file is missing, corrupt or not what the site declares."""


class Unusable(Exception):
    """One record cannot be used; the text says why, for the site's own eyes. It stays inside the
    source that raised it."""
