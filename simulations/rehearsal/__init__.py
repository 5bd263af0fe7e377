"""A whole consortium on one machine, with the commands that people type between hospitals."""
