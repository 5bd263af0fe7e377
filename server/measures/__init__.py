"""Figures of a model's quality, from counts that left the sites with noise."""

POOLED = "all sites"
"""Name in place of a site's, for the counts of all sites of a kind of image together."""
