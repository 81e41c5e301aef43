"""Measuring: prompts, paired runs on them in one process, tuning, and whether output is exact."""
