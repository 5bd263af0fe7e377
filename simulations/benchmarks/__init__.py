"""Benchmarks. Each has the options `--quick` (under a minute) and `--out FILE.json`."""
