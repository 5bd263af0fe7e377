"""Noisy counts: of a site's classes, for its own use, and of a model's scores, for a server."""
