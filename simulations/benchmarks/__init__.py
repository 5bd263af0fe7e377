"""Benchmarks; each takes `--quick` (under a minute) and `--out FILE.json`."""
