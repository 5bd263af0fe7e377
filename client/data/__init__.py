"""One module a data source; all yield the same `Records`."""
