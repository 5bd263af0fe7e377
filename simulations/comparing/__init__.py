"""Comparisons of complete simulations: over seeds, settings, baselines and epsilons."""
