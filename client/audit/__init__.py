"""A test of a site's mechanism with canaries. Commands import this file, so it loads no torch."""

MIN_CANARIES = 1_000
"""Lower limit of the number of canaries: with fewer, the bound is too weak to be useful."""
