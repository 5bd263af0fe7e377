"""Sweeps: one scenario over epsilons, seeds and other settings, a run folder for each cell."""
