"""A report as a record of the OpenDP registry of deployments of differential privacy."""
