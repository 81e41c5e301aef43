"""Benchmarks: `python benchmarks/<name>.py` from the root of the repository."""
