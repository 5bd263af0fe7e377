"""Figures of a model's quality, from counts that left the sites with noise."""
