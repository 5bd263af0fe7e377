"""Attacks on a simulated run, beside what its plan claims."""
