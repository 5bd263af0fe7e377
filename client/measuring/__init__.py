"""The one measurement of a run's final model at a site, under differential privacy."""
