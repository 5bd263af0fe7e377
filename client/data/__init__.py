"""Private records of one site: declarations, file formats and the withdrawal list. All sources
yield the same `Records`."""
