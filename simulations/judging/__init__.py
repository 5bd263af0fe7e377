"""Judges the final models of a simulation: ROC curves, and a map of public images."""
